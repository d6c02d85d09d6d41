//! The disk under the logs: file system, O_DIRECT, the device's cache and scheduler.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::finding::{Advice, Finding, Grade};
use crate::host::Host;

pub(crate) fn findings(host: &Host, data: &Path, probe: bool) -> Vec<Finding> {
    let mount = Mount::of(host, data);
    let mut findings = vec![file_system(data, mount.as_ref())];
    if probe {
        findings.push(direct(data));
    }
    if let Some(queue) = mount.and_then(|mount| queue_of(host, &mount.device)) {
        findings.extend([block_size(host, &queue), write_cache(host, &queue), scheduler(host, &queue)]);
    }
    findings
}

/// The line of `mountinfo` that a path lies under.
struct Mount {
    kind: String,
    device: String,
}

impl Mount {
    fn of(host: &Host, data: &Path) -> Option<Self> {
        let table = host.text("proc/self/mountinfo")?;
        // A later line hides an earlier one at the same place, and `max_by_key` returns the last of equals.
        let candidates = table.lines().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut words = left.split(' ');
            let device = words.nth(2)?.to_owned();
            let place = PathBuf::from(words.nth(1)?.replace("\\040", " "));
            let kind = right.split(' ').next()?.to_owned();
            data.starts_with(&place).then(|| (place.components().count(), Mount { kind, device }))
        });
        candidates.max_by_key(|(depth, _)| *depth).map(|(_, mount)| mount)
    }
}

fn file_system(data: &Path, mount: Option<&Mount>) -> Finding {
    let advice = Advice {
        wanted: "ext4 or xfs on a local disk",
        why: "they overwrite preallocated space in place; copy-on-write and network file systems do not, \
              and memory does not survive a power cut",
        change: "put the data directory on another file system",
    };
    let (grade, kind) = match mount.map(|mount| mount.kind.as_str()) {
        None => (Grade::Unknown, "an unknown file system"),
        Some(kind @ ("ext4" | "xfs")) => (Grade::Good, kind),
        Some(kind @ ("tmpfs" | "ramfs")) => (Grade::Harmful, kind),
        Some(kind @ ("nfs" | "nfs4" | "cifs" | "9p" | "fuse")) => (Grade::Harmful, kind),
        Some(kind @ ("btrfs" | "zfs" | "bcachefs" | "overlay" | "ext3" | "ext2" | "f2fs")) => {
            (Grade::CouldBeBetter, kind)
        }
        Some(kind) => (Grade::Unknown, kind),
    };
    Finding::new("file system", grade, format!("{kind} under {}", data.display()), &advice)
}

fn direct(data: &Path) -> Finding {
    let advice = Advice {
        wanted: "O_DIRECT writes of 4 KiB",
        why: "the log goes to the disk past the page cache; without O_DIRECT each flush is a write and an fdatasync, \
              half as long again",
        change: "use ext4 or xfs; check that the directory exists and can be written",
    };
    match try_direct(data) {
        Ok(()) => Finding::new("direct writes", Grade::Good, "a 4 KiB block was written with O_DIRECT", &advice),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Finding::new("direct writes", Grade::CouldBeBetter, format!("O_DIRECT is refused: {error}"), &advice)
        }
        Err(error) => Finding::new("direct writes", Grade::Unknown, format!("cannot be tried: {error}"), &advice),
    }
}

fn try_direct(data: &Path) -> io::Result<()> {
    let path = data.join(format!(".evershard-tuning-{}", std::process::id()));
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).custom_flags(libc::O_DIRECT).open(&path)?;
        let bytes = vec![0; 2 * BLOCK_SIZE];
        let start = bytes.as_ptr().align_offset(BLOCK_SIZE);
        let block = bytes.get(start..start + BLOCK_SIZE).ok_or(io::ErrorKind::Other)?;
        file.write_all(block)
    })();
    if result.is_ok() || path.exists() {
        fs::remove_file(&path)?;
    }
    result
}

/// The directory of a block device's queue; a partition's lies with its disk.
fn queue_of(host: &Host, device: &str) -> Option<String> {
    let own = format!("sys/dev/block/{device}/queue");
    let parent = format!("sys/dev/block/{device}/../queue");
    [own, parent].into_iter().find(|queue| !host.names(queue).is_empty())
}

fn block_size(host: &Host, queue: &str) -> Finding {
    let advice = Advice {
        wanted: "blocks of at most 4096 bytes",
        why: "the log writes in units of 4 KiB, and O_DIRECT wants whole blocks of the device",
        change: "format the device with smaller blocks",
    };
    let (grade, found) = match host.number(&format!("{queue}/logical_block_size")) {
        None => (Grade::Unknown, "cannot be read".to_owned()),
        Some(size @ 0..=4096) => (Grade::Good, format!("{size} bytes")),
        Some(size) => (Grade::Harmful, format!("{size} bytes")),
    };
    Finding::new("device block", grade, found, &advice)
}

fn write_cache(host: &Host, queue: &str) -> Finding {
    let advice = Advice {
        wanted: "write through (a cache that survives a power cut), or forced unit access",
        why: "with a volatile cache and no forced unit access a durable write is two trips to the device",
        change: "a disk with power-loss protection; nothing to switch: telling the kernel a false `write through` loses data",
    };
    let cache = host.text(&format!("{queue}/write_cache"));
    let forced = host.number(&format!("{queue}/fua")) == Some(1);
    let (grade, found) = match (cache.as_deref(), forced) {
        (None, _) => (Grade::Unknown, "cannot be read".to_owned()),
        (Some("write through"), _) => (Grade::Good, "write through".to_owned()),
        (Some(cache), true) => (Grade::Good, format!("{cache}, with forced unit access")),
        (Some(cache), false) => (Grade::CouldBeBetter, format!("{cache}, without forced unit access")),
    };
    Finding::new("device cache", grade, found, &advice)
}

fn scheduler(host: &Host, queue: &str) -> Finding {
    let advice = Advice {
        wanted: "none",
        why: "a scheduler holds and orders requests for disks with heads; here it only adds time",
        change: "echo none > /sys/block/DEVICE/queue/scheduler",
    };
    let choice = host.choice(&format!("{queue}/scheduler"));
    let grade = match choice.as_deref() {
        Some("none") => Grade::Good,
        Some(_) => Grade::CouldBeBetter,
        None => Grade::Unknown,
    };
    Finding::new("device scheduler", grade, choice.unwrap_or_else(|| "cannot be read".to_owned()), &advice)
}

const BLOCK_SIZE: usize = 4096;
