//! Leases and clocks that are read at the wrong moment.

use evershard_sim::plan::MS;
use evershard_sim::script::Script;

/// A follower stopped between its look at the clock and its look at what had come in took appends for older than they
/// were: it promised the leader of an append that was sent while it slept a lease from when that was sent, and kept it
/// from when it had fallen asleep. The third replica had not heard the leader for long; with the follower's vote it led
/// and committed while the old leader, cut off from both but not from its client, still answered under its lease. Shorter
/// than a stall, so that the follower noticed nothing.
#[test]
fn a_promise_is_kept_from_when_it_is_given() {
    for seed in 0..60 {
        let mut script = Script::new(seed, |options| {
            let timing = &mut options.timing;
            (timing.election_min_ns, timing.election_max_ns) = (150 * MS, 300 * MS);
            (timing.heartbeat_ns, timing.stall_ns, timing.lease_ns) = (20 * MS, 75 * MS, 150 * MS);
            options.latency_ns = (20_000, 30_000);
            options.disk_ns = (15_000, 20_000);
            (options.questions, options.question_ns) = (10_000, 2 * MS);
            options.drift_ppm = 0;
        });
        let leader = script.elect(0);
        script.run_for(300);
        let (follower, third) = ((leader + 1) % 3, (leader + 2) % 3);
        script.partition(leader, third);
        script.partition(third, leader);
        script.run_for(400 + seed * 7);
        script.pause_in_turn(follower, 70);
        script.run_for(75);
        script.isolate(leader);
        script.run_for(150);
        script.settle();
    }
}
