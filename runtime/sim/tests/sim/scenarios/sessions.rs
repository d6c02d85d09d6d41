//! Sessions and their clients: scenarios 53, 54, 55, 56 and 58.

use evershard_protocol::limits::SESSIONS_MAX;
use evershard_sim::plan::MS;
use evershard_sim::script::Script;
use evershard_sim::service::Command;

use super::{await_other, durable, ready, with};

fn silence(script: &mut Script, client: usize) {
    for node in 0..script.world.nodes.len() {
        script.part(node, client);
    }
}

/// A command is committed, and its answer does not reach the client, which goes on elsewhere and sends it again: it is answered
/// from memory with the same reply, and was executed once.
#[test]
fn s53_a_command_sent_again_through_another_node_is_executed_once() {
    for seed in 0..8 {
        let mut script = durable(seed);
        let leader = ready(&mut script);
        script.call(0, Command::Put(1, 0));
        script.mute(leader, 0);
        script.send(0, Command::Add(1, 5));
        let committed = script.status(leader, 0).expect("it runs").committed;
        script.run_until(1000, "it is committed", |script| {
            script.status(leader, 0).is_some_and(|status| status.applied > committed)
        });
        assert_eq!(script.answered(0), 1, "seed {seed}: nobody told the client");
        script.transfer(0, (leader + 1) % 3);
        script.run_until(20_000, "it is answered", |script| script.answered(0) == 2);
        let reply = script.world.history.operations[1].reply.as_ref().expect("just seen");
        assert_eq!(reply.payload, 5_u64.to_le_bytes());
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [5]);
    }
}

/// Leaders die while many commands of one session are under way: the session goes on, each is answered once and in order (the
/// client checks that), none is left out.
#[test]
fn s54_a_session_goes_on_after_failover_without_a_gap() {
    for seed in 0..8 {
        let mut script = durable(seed);
        ready(&mut script);
        let mut sent = 0;
        for round in 0..5 {
            for _ in 0..50 {
                sent += u64::from(script.send(0, Command::Add(1, 1)));
                if sent % 10 == seed {
                    script.run_for(1);
                }
            }
            let leader = script.elect(0);
            script.run_for(round % 2);
            script.crash(leader);
            await_other(&mut script, leader, 10_000);
            script.restart(leader);
            script.run_for(500);
        }
        script.settle();
        assert_eq!((script.call(0, Command::Get(1)), script.world.clients[0].sessions()), (vec![sent], 1));
    }
}

/// A session runs out while its client is cut off and sends one more command, which arrives at every moment around it: either it
/// is executed and answered, or the session is over and it is not; on every replica the same (`state-differs`).
#[test]
fn s55_a_late_command_meets_the_end_of_its_session() {
    let mut lost = 0;
    for seed in 0..16 {
        let mut script = with(seed, |options| {
            options.session_timeout_ns = 1_500 * MS;
            options.clients = 2;
        });
        ready(&mut script);
        script.call(0, Command::Put(1, 0));
        silence(&mut script, 0);
        script.send(0, Command::Add(1, 1));
        script.run_for(800 + 350 * seed);
        script.heal();
        script.run_for(5000);
        script.settle();
        let answered = script.answered(0) == 2;
        lost += u32::from(script.world.clients[0].sessions() > 1);
        let value = script.call(1, Command::Get(1))[0];
        assert_eq!(value, u64::from(answered), "seed {seed}: executed without an answer, or answered without that");
    }
    assert!(0 < lost && lost < 16, "{lost} of 16 sessions ran out: the scenario shows one side only");
}

/// More clients than a shard has room for, some of them gone without a goodbye: whoever comes too late is told so and waits, no
/// session gives way to another, and every replica has the same.
#[test]
fn s56_a_full_table_of_sessions_refuses_and_evicts_nobody() {
    let mut script = with(1, |options| {
        options.clients = SESSIONS_MAX + 40;
        options.window_len = 1;
        options.session_timeout_ns = 600_000 * MS;
    });
    ready(&mut script);
    script.run_for(2000);
    (0..SESSIONS_MAX / 4).for_each(|client| silence(&mut script, client));
    script.run_for(8000);
    let len = |script: &Script, node: usize| script.world.nodes[node].core(0).map(|core| core.replica().sessions.len());
    script.run_until(20_000, "the table is full", |script| len(script, 0) == Some(SESSIONS_MAX));
    script.run_for(2000);
    assert!((0..3).all(|node| len(&script, node) == Some(SESSIONS_MAX)));
    let waits = script.world.clients.iter().any(|client| client.describe().contains("SessionsFull"));
    assert!(waits, "whoever comes too late is told");
    assert!(script.world.clients.iter().all(|client| client.sessions() == 1), "nobody lost a session");
}

/// A client takes in nothing of what it asked for, large replies and events: what waits for it is bounded, the others are served
/// as before, and when it reads again it gets every reply.
#[test]
fn s58_a_client_that_does_not_read_holds_nobody_up() {
    for seed in 0..5 {
        let mut script = with(seed, |options| options.clients = 2);
        ready(&mut script);
        script.call(0, Command::Put(1, 0));
        script.call(1, Command::Put(2, 0));
        let end = script.world.time + 4000 * MS;
        script.world.clients[0].reads_from = end;
        let mut value = 0;
        while script.world.time < end {
            script.send_sized(0, Command::Echo(1), 60_000);
            let began = script.world.time;
            value += 1;
            assert_eq!(script.call(1, Command::Add(2, 1)), [value]);
            assert!((script.world.time - began) / MS <= 12, "seed {seed}: the other client waited");
            script.run_for(15);
        }
        script.world.network.resume(end);
        script.settle();
        assert_eq!(script.world.clients[0].unanswered(), 0);
    }
}
