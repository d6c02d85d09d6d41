//! Which shard a symbol belongs to.

use evershard_service::ShardId;

use crate::wire::Symbol;

/// The shard of `symbol` among `shards`: FNV-1a of its text, its halves folded, modulo. Part of the format of a
/// cluster's data: it never changes, and neither does a cluster's number of shards.
///
/// # Panics
/// If `shards` is 0.
#[must_use]
pub fn shard_of(symbol: Symbol, shards: u16) -> ShardId {
    assert!(shards > 0, "a cluster has a shard at least");
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let hash = symbol.as_str().bytes().fold(0xCBF2_9CE4_8422_2325, fold);
    // The low bits alone are weak: names of one length often share them.
    let folded = hash ^ (hash >> 32);
    ShardId(u16::try_from(folded % u64::from(shards)).expect("a remainder is below its divisor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_symbols_spread_and_stay() {
        let shard = |symbol: &str, shards| shard_of(symbol.parse().expect("a symbol"), shards).0;
        assert_eq!((shard("BTCUSD", 3), shard("XBTUSD", 3)), (2, 1));
        assert_eq!((shard("BTCUSD", 2), shard("XBTUSD", 2)), (0, 1));
        assert_eq!(shard("ANY", 1), 0);
    }
}
