//! Which cores there are, and pinning a thread to one.

use std::fs;

/// The kernel refused to pin the calling thread.
#[derive(Debug, thiserror::Error)]
#[error("cannot pin a thread to core {core}: it is offline, does not exist, or this process's cpuset excludes it")]
pub struct PinError {
    /// The core asked for.
    pub core: usize,
}

/// Pins the calling thread to one core, by its kernel number.
///
/// # Errors
/// [`PinError`] if the kernel does not allow it.
pub fn pin_to(core: usize) -> Result<(), PinError> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) { Ok(()) } else { Err(PinError { core }) }
}

/// The cores the calling thread may run on, ascending.
#[must_use]
pub fn allowed() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}

/// Cores set aside at boot (`isolcpus=`), which [`allowed`] does not show.
#[must_use]
pub fn isolated() -> Vec<usize> {
    let list = fs::read_to_string("/sys/devices/system/cpu/isolated").unwrap_or_default();
    parse_list(&list)
}

/// Parses the kernel's list format, such as `0-3,8`. What does not parse is skipped.
#[must_use]
pub fn parse_list(list: &str) -> Vec<usize> {
    let mut cores = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_kernels_lists() {
        assert_eq!(parse_list("0-2,5\n"), vec![0, 1, 2, 5]);
        assert_eq!(parse_list("\n"), Vec::<usize>::new());
        assert_eq!(parse_list("3,x,7-8"), vec![3, 7, 8]);
    }
}
