//! A shard's thread allocates nothing in steady state: counted, not believed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use evershard::client::{ClientEvent, SendError};
use evershard::{Cluster, Context, Digest, Service, SnapshotError, SnapshotReader, SnapshotWriter};

/// The thread whose allocations count; 0 for none.
static WATCHED: AtomicI32 = AtomicI32::new(0);
/// Its allocations.
static COUNT: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is handed to the system's allocator unchanged; counting touches only atomics.
#[expect(unsafe_code, reason = "counting allocations needs an allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's contract, and it is the same one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // Relaxed: a mere count, read when the traffic is over.
    let watched = WATCHED.load(Ordering::Relaxed);
    if watched != 0 && nix::unistd::gettid().as_raw() == watched {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

/// Replies with what it was sent.
struct Mirror;

impl Service for Mirror {
    fn apply(&mut self, context: &mut Context<'_>, command: &[u8]) {
        context.reply(command).expect("a command is never larger than a reply may be");
    }
    fn digest(&self) -> Digest {
        Digest(0)
    }
    fn save(&self, _: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
        Ok(())
    }
    fn restore(&mut self, _: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
        Ok(())
    }
}

/// The kernel's number of this process's thread with that name.
fn thread_named(name: &str) -> i32 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let named = tasks
        .flatten()
        .find(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name));
    let number = named.expect("the shard's thread runs").file_name();
    number.to_string_lossy().parse().expect("tasks are numbers")
}

fn exchange(client: &mut evershard::Client, requests: u64, size: usize) {
    let payload = vec![7; size];
    let (mut sent, mut answered) = (0, 0);
    while answered < requests {
        while sent < requests {
            match client.try_send(&payload) {
                Ok(_) => sent += 1,
                Err(SendError::WindowFull | SendError::QueueFull) => break,
                Err(error) => panic!("{error}"),
            }
        }
        client
            .poll(Some(Duration::from_secs(1)), &mut |event| {
                answered += u64::from(matches!(event, ClientEvent::Reply { .. }));
            })
            .expect("the cluster is there");
    }
}

#[test]
fn a_shards_thread_allocates_nothing_in_steady_state() {
    let cluster = Cluster::embedded(1, |_| Mirror).expect("an embedded cluster");
    let mut client = cluster.client(0).expect("a client");
    exchange(&mut client, 20_000, 1344);
    let watched = thread_named("shard-0");
    COUNT.store(0, Ordering::Relaxed);
    WATCHED.store(watched, Ordering::Relaxed);
    // Enough to roll over to another segment of 16 MiB on the way.
    exchange(&mut client, 40_000, 1344);
    WATCHED.store(0, Ordering::Relaxed);
    assert_eq!(COUNT.load(Ordering::Relaxed), 0, "allocations on the shard's thread");
    client.close().expect("closed");
}
