//! Elections and terms: scenarios 1 to 6 and 12. (7 to 11 are in the tests of consensus.)

use evershard_consensus::{Role, Timing};
use evershard_protocol::bugs::{self, Bug};
use evershard_sim::plan::MS;
use evershard_sim::service::Command;

use super::{await_other, durable, leads, ready, terms, wake_up_alone, with};

/// Timers so close together that candidates meet; they are drawn anew each round, so sooner or later one is ahead.
#[test]
fn s01_split_votes_end_because_timers_are_drawn_anew() {
    let mut split = 0;
    for seed in 0..20 {
        let mut script = with(seed, |options| {
            (options.nodes, options.voters) = (5, 5);
            options.timing =
                Timing { election_min_ns: 100 * MS, election_max_ns: 112 * MS, stall_ns: 50 * MS, ..Timing::default() };
            options.latency_ns = (5 * MS, 10 * MS);
        });
        let leader = ready(&mut script);
        split += u32::from(script.status(leader, 0).expect("it runs").term.0 > 1);
        script.settle();
    }
    assert!(split > 0, "no vote was split: the scenario shows nothing");
}

/// All replicas start at the same instant by the same clock, so that their seeds are equal but for their ids: their timers
/// differ all the same, and one election is mostly enough.
#[test]
fn s02_replicas_that_boot_at_the_same_instant_draw_different_timers() {
    let mut elections = 0;
    for seed in 0..20 {
        let mut script = with(seed, |options| {
            (options.nodes, options.voters) = (5, 5);
            (options.drift_ppm, options.offset_ns) = (0, 0);
        });
        script.elect(0);
        script.power_cut(&[0, 1, 2, 3, 4]);
        script.run_for(100);
        let before = terms(&script);
        (0..5).for_each(|node| script.restart(node));
        script.run_until(3000, "one of them leads", |script| {
            (0..5).any(|node| script.status(node, 0).is_some_and(|status| status.role == Role::Leader))
        });
        elections += terms(&script) - before;
        script.settle();
    }
    assert!(elections <= 24, "{elections} terms for 20 boots");
}

/// A follower hears nobody for long and comes back: the leader and its term stay what they were.
#[test]
fn s03_a_follower_that_was_cut_off_disturbs_no_leader() {
    for seed in 0..10 {
        let mut script = durable(seed);
        let leader = ready(&mut script);
        let lonely = (leader + 1) % 3;
        let term = script.status(leader, 0).expect("it runs").term;
        script.isolate(lonely);
        for value in 1..=10 {
            assert_eq!(script.call(0, Command::Add(1, 1)), [value]);
            script.run_for(300);
        }
        assert_eq!(script.status(lonely, 0).expect("it runs").term, term, "it asks beforehand, and nobody agrees");
        script.heal();
        script.settle();
        let now = script.status(leader, 0).expect("it runs");
        assert_eq!((now.role, now.term, terms(&script)), (Role::Leader, term, 1));
    }
}

/// The leader is heard and hears nobody: it steps down, and the others elect one that can do both.
#[test]
fn s04_a_leader_that_hears_nobody_steps_down() {
    for seed in 0..10 {
        let mut script = durable(seed);
        let leader = ready(&mut script);
        script.call(0, Command::Put(1, 1));
        (0..3).filter(|node| *node != leader).for_each(|node| script.partition(node, leader));
        script.run_until(450, "it steps down", |script| !leads(script, leader));
        await_other(&mut script, leader, 3000);
        assert_eq!(script.call(0, Command::Add(1, 1)), [2]);
        script.heal();
        script.settle();
    }
}

/// The leader hears and is not heard: the others elect one, and it steps down because nobody acknowledges.
#[test]
fn s05_a_leader_that_is_not_heard_is_replaced_and_steps_down() {
    for seed in 0..10 {
        let mut script = durable(seed);
        let leader = ready(&mut script);
        script.call(0, Command::Put(1, 1));
        (0..3).filter(|node| *node != leader).for_each(|node| script.partition(leader, node));
        script.run_until(450, "it steps down", |script| !leads(script, leader));
        await_other(&mut script, leader, 3000);
        assert_eq!(script.call(0, Command::Add(1, 1)), [2]);
        script.heal();
        script.settle();
    }
}

/// A - B - C with the link from A to C cut: leadership settles and stays, whoever had it.
#[test]
fn s06_a_chain_of_links_settles() {
    for seed in 0..10 {
        let mut script = durable(seed);
        let leader = ready(&mut script);
        let end = (leader + 1 + usize::from(seed % 2 == 0)) % 3;
        script.partition(leader, end);
        script.partition(end, leader);
        script.run_for(5000);
        let before = terms(&script);
        for value in 1..=10 {
            assert_eq!(script.call(0, Command::Add(1, 1)), [value]);
            script.run_for(500);
        }
        assert_eq!(terms(&script), before, "seed {seed}: leadership goes back and forth");
        script.heal();
        script.settle();
    }
}

/// The leader is stopped with questions and commands in its sockets, for thirty seconds and for less than anybody's patience
/// with it, with and without a lease; others lead and write meanwhile. When it goes on it answers nothing from its old state
/// and acknowledges nothing on its own.
#[test]
fn s12_a_leader_that_was_paused_answers_nothing_stale_and_acknowledges_nothing() {
    for seed in 0..16 {
        let (pause_ms, lease_ns) = ([30_000, 1100][usize::from(seed % 2 == 0)], (seed % 4 / 2) * 120 * MS);
        let mut script = with(seed, |options| {
            options.clients = 2;
            options.timing.lease_ns = lease_ns;
        });
        let leader = ready(&mut script);
        script.call(0, Command::Put(1, 1));
        assert_eq!(script.read(1, 1), 1);
        // What clients say is read before the news of a successor.
        script.reset_links(leader);
        script.run_for(200);
        let leader = ready(&mut script);
        script.pause(leader, pause_ms);
        for _ in 0..5 {
            script.send(0, Command::Add(1, 10));
            script.ask(0, 1);
        }
        await_other(&mut script, leader, 3000);
        // As soon as the other client has written, the first one asks again where it still believes to be connected.
        script.send(1, Command::Add(1, 100));
        let end = script.world.time + 3000 * MS;
        while script.world.time < end {
            script.ask(0, 1);
            script.ask(1, 1);
            script.run_for(20);
        }
        script.run_for(pause_ms.saturating_sub(3000) + 500);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [151]);
        assert!(script.world.history.answers.len() > 50, "questions are answered");
    }
}

/// A leader that wakes up without a link to anybody but a client asks the others before it answers, and nobody replies.
#[test]
fn s12_a_leader_that_wakes_up_alone_answers_nothing() {
    let woken = (0..24).filter(|seed| wake_up_alone(&mut with(*seed, |options| options.clients = 2))).count();
    assert!(woken >= 4, "{woken} of 24 leaders woke up to a question: the scenario shows nothing");
}

/// The same with a bug that answers at once: it is found, so the scenario shows something.
#[test]
#[should_panic(expected = "`stale-read`")]
fn s12_answers_that_nobody_confirmed_are_found() {
    bugs::switch(Some(Bug::ReadUnconfirmed));
    for seed in 0..24 {
        wake_up_alone(&mut with(seed, |options| options.clients = 2));
    }
}
