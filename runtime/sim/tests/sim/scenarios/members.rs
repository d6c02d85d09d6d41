//! Members that come and go under load: scenarios 46 and 48. (44, 45 and 47 are in the tests of consensus.)

use evershard_protocol::client::AdminAction::{MemberAdd, MemberPromote, MemberRemove};
use evershard_protocol::{NodeId, NodeSet};
use evershard_sim::script::Script;
use evershard_sim::service::Command;

use super::{await_other, leads, ready, with};

fn voters(script: &Script) -> NodeSet {
    script.membership(0).expect("there is a leader").voters
}

fn set(nodes: &[usize]) -> NodeSet {
    nodes.iter().map(|node| NodeId(u8::try_from(*node).expect("few nodes"))).collect()
}

/// A leader is removed by its own hand, another one while it is cut off; both are added again at once under their old ids.
#[test]
fn s46_leaders_are_removed_and_added_again() {
    for seed in 0..6 {
        let mut script = with(seed, |_| {});
        let leader = ready(&mut script);
        script.call(0, Command::Put(1, 0));
        script.change(0, MemberRemove, leader);
        await_other(&mut script, leader, 5000);
        script.call(0, Command::Add(1, 1));
        script.change(0, MemberAdd, leader);
        script.run_for(200);
        script.change(0, MemberPromote, leader);
        assert_eq!(voters(&script), set(&[0, 1, 2]));
        // Cut off, it writes what nobody sees, and is removed meanwhile.
        let cut = script.world.leader(0).expect("there is one");
        script.isolate(cut);
        script.send(0, Command::Add(1, 1));
        await_other(&mut script, cut, 5000);
        script.change(0, MemberRemove, cut);
        script.run_until(500, "it steps down", |script| !leads(script, cut));
        script.heal();
        script.change(0, MemberAdd, cut);
        script.run_for(200);
        script.change(0, MemberPromote, cut);
        assert_eq!(voters(&script), set(&[0, 1, 2]));
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [2]);
    }
}

/// Two of three nodes are replaced one after the other while commands go on; one of them is lost for good in the middle of
/// it. The new ones can do without the last old one's lead.
#[test]
fn s48_two_of_three_are_replaced_under_load_and_one_is_lost_for_good() {
    for seed in 0..6 {
        let mut script = with(seed, |options| (options.nodes, options.voters) = (5, 3));
        let leader = ready(&mut script);
        let (first, second) = ((leader + 1) % 3, (leader + 2) % 3);
        let mut sent = 0;
        let mut work = |script: &mut Script, len: u64| {
            for _ in 0..len {
                sent += u64::from(script.send(0, Command::Add(1, 1)));
                script.run_for(2);
            }
            sent
        };
        work(&mut script, 50);
        script.change(0, MemberAdd, 3);
        work(&mut script, 50);
        script.crash(first);
        work(&mut script, 50);
        for (new, old) in [(3, first), (4, second)] {
            script.change(0, MemberAdd, new);
            work(&mut script, 50);
            script.change(0, MemberPromote, new);
            work(&mut script, 50);
            script.change(0, MemberRemove, old);
            work(&mut script, 50);
        }
        assert_eq!(voters(&script), set(&[leader, 3, 4]));
        script.crash(leader);
        let next = await_other(&mut script, leader, 5000);
        assert!(next >= 3, "seed {seed}: n{next} is no voter");
        let sent = work(&mut script, 50);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
        assert_eq!(voters(&script), set(&[leader, 3, 4]), "who was lost and comes back stays outside");
    }
}
