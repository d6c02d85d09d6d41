//! `not-linearizable`: the history of each key, looked at as that of a register and without any knowledge of the log,
//! has an order that explains all answers. For small histories; see [`crate::wgl`].

use crate::history::{History, empty_register};
use crate::oracle::Violation;
use crate::wgl::{Verdict, check};

/// Operations on one key that are still searched.
const CALLS_LEN_MAX: usize = 70;
/// Steps of one search.
const STEPS_MAX: u64 = 20_000;

/// Searches every key of a shard.
///
/// # Errors
/// [`Violation`].
pub fn search(history: &History, shard: usize) -> Result<(), Violation> {
    for key in 0..=u8::MAX {
        let Some(calls) = history.register(shard, key).filter(|calls| !calls.is_empty()) else { continue };
        if calls.len() <= CALLS_LEN_MAX && check(&empty_register(), &calls, STEPS_MAX) == Verdict::NotLinearizable {
            let what = format!("shard {shard}, key {key}: no order explains {calls:?}");
            return Violation::of("not-linearizable", what);
        }
    }
    Ok(())
}
