//! Which address to try next, and how long to wait before.

use evershard_protocol::Instant;
use evershard_protocol::time::MILLISECOND_NS;

/// Pause after an answer that names no leader: an election takes a few of these.
const NO_LEADER_PAUSE_NS: u64 = 5 * MILLISECOND_NS;
/// Pause after the first round over all endpoints failed; doubles with each round up to [`OUTAGE_PAUSE_MAX_NS`].
const OUTAGE_PAUSE_NS: u64 = 5 * MILLISECOND_NS;
const OUTAGE_PAUSE_MAX_NS: u64 = 100 * MILLISECOND_NS;
/// Pause before asking the same node again that has no room for a session.
const FULL_PAUSE_NS: u64 = 50 * MILLISECOND_NS;
/// For so long a redirect to an address that has just failed is not believed: the follower has not noticed yet.
const AVOID_NS: u64 = 200 * MILLISECOND_NS;
/// Redirects followed at once; beyond, two nodes may be naming each other and each hop waits.
const REDIRECTS_AT_ONCE: u32 = 2;
/// Redirects followed in a row; beyond, the next endpoint is asked.
const REDIRECTS_IN_A_ROW_MAX: u32 = 4;
/// Bytes of an address. More is no address.
const ADDRESS_SIZE_MAX: usize = 256;

/// The endpoints of the shard and where we are among them.
pub(super) struct Route {
    endpoints: Vec<String>,
    /// The endpoint in use, or that which was in use before a redirect.
    index: usize,
    /// The address a redirect named, if it is the one in use. Its allocation is kept.
    redirect: String,
    redirected: bool,
    /// Connections that ended without progress, since the last progress.
    failures: u32,
    redirects: u32,
    avoid: String,
    avoid_until: Instant,
}

impl Route {
    pub(super) fn new(endpoints: Vec<String>) -> Self {
        assert!(!endpoints.is_empty(), "a client needs an endpoint to connect to");
        Self {
            endpoints,
            index: 0,
            redirect: String::new(),
            redirected: false,
            failures: 0,
            redirects: 0,
            avoid: String::new(),
            avoid_until: Instant(0),
        }
    }

    /// The address in use.
    pub(super) fn address(&self) -> &str {
        if self.redirected { &self.redirect } else { &self.endpoints[self.index] }
    }

    /// The connection works.
    pub(super) fn on_progress(&mut self) {
        self.failures = 0;
        self.redirects = 0;
    }

    /// The address in use does not answer, or not sensibly: on to the next endpoint. Returns when.
    pub(super) fn on_failure(&mut self, now: Instant) -> Instant {
        let failed = if self.redirected { &self.redirect } else { &self.endpoints[self.index] };
        self.avoid.clone_from(failed);
        self.avoid_until = now.after(AVOID_NS);
        self.advance();
        self.failures = self.failures.saturating_add(1);
        let endpoints_len = u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX);
        if !self.failures.is_multiple_of(endpoints_len) {
            return now;
        }
        let rounds = (self.failures / endpoints_len).min(16);
        now.after((OUTAGE_PAUSE_NS << (rounds - 1)).min(OUTAGE_PAUSE_MAX_NS))
    }

    /// The node in use is not the leader and names `leader`, which may be empty. Returns when to go there.
    pub(super) fn on_redirect(&mut self, leader: &[u8], now: Instant) -> Instant {
        self.redirects = self.redirects.saturating_add(1);
        let named = std::str::from_utf8(leader).ok().filter(|leader| self.is_worth_trying(leader, now));
        // Nodes that have left the shard may name each other, or one that names nobody, for ever: the round over all endpoints
        // goes on from the one that was asked first, whoever was named.
        let Some(leader) = named.filter(|_| self.redirects <= REDIRECTS_IN_A_ROW_MAX) else {
            self.redirects = 0;
            self.advance();
            return now.after(NO_LEADER_PAUSE_NS);
        };
        self.redirect.clear();
        self.redirect.push_str(leader);
        self.redirected = true;
        if self.redirects <= REDIRECTS_AT_ONCE { now } else { now.after(NO_LEADER_PAUSE_NS) }
    }

    /// The node in use is the right one but ended the connection: the same again. Returns when.
    pub(super) fn on_again(&mut self, now: Instant) -> Instant {
        now.after(NO_LEADER_PAUSE_NS)
    }

    /// The node in use has no room for another session. Returns when to ask again.
    pub(super) fn on_full(&mut self, now: Instant) -> Instant {
        now.after(FULL_PAUSE_NS)
    }

    fn is_worth_trying(&self, leader: &str, now: Instant) -> bool {
        let possible = !leader.is_empty() && leader.len() <= ADDRESS_SIZE_MAX;
        let just_failed = leader == self.avoid && now < self.avoid_until;
        possible && !just_failed && leader != self.address()
    }

    fn advance(&mut self) {
        self.redirected = false;
        self.index = (self.index + 1) % self.endpoints.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(endpoints: &[&str]) -> Route {
        Route::new(endpoints.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn one_round_is_quick_and_the_pauses_double_up_to_their_limit() {
        let mut route = route(&["a:1", "b:1", "c:1"]);
        let mut pauses_ms = Vec::new();
        for _ in 0..24 {
            pauses_ms.push(route.on_failure(Instant(0)).0 / MILLISECOND_NS);
        }
        assert_eq!(pauses_ms[..9], [0, 0, 5, 0, 0, 10, 0, 0, 20]);
        assert_eq!(pauses_ms[23], 100);
        route.on_progress();
        assert_eq!(route.on_failure(Instant(0)), Instant(0));
    }

    #[test]
    fn a_redirect_to_the_node_that_just_failed_is_not_believed() {
        let mut route = route(&["a:1", "b:1", "c:1"]);
        route.on_failure(Instant(0));
        assert_eq!(route.address(), "b:1");
        assert_eq!(route.on_redirect(b"a:1", Instant(7)), Instant(7).after(NO_LEADER_PAUSE_NS));
        assert_eq!(route.address(), "c:1");
        let later = Instant(0).after(AVOID_NS);
        assert_eq!(route.on_redirect(b"a:1", later), later);
        assert_eq!(route.address(), "a:1");
    }

    #[test]
    fn two_nodes_naming_each_other_are_asked_slowly() {
        let mut route = route(&["a:1"]);
        assert_eq!(route.on_redirect(b"x:1", Instant(0)), Instant(0));
        assert_eq!(route.on_redirect(b"y:1", Instant(0)), Instant(0));
        assert_eq!(route.on_redirect(b"x:1", Instant(0)), Instant(NO_LEADER_PAUSE_NS));
    }

    /// Two nodes that have left the shard: `b` still names `a`, which names nobody. Who leads is behind them.
    #[test]
    fn nodes_that_have_left_do_not_keep_a_client_from_the_others() {
        let mut route = route(&["a:1", "b:1", "c:1"]);
        route.on_redirect(b"", Instant(0));
        assert_eq!(route.address(), "b:1");
        route.on_redirect(b"a:1", Instant(0));
        assert_eq!(route.address(), "a:1");
        route.on_redirect(b"", Instant(0));
        assert_eq!(route.address(), "c:1");
        // Nor do two that name each other.
        let mut asked = Vec::new();
        for hop in 0..12 {
            route.on_redirect(if hop % 2 == 0 { b"x:1" } else { b"y:1" }, Instant(0));
            asked.push(route.address().to_owned());
        }
        assert!(asked.contains(&"a:1".to_owned()) && asked.contains(&"b:1".to_owned()), "{asked:?}");
    }

    #[test]
    fn what_is_no_address_counts_as_unknown() {
        let mut route = route(&["a:1", "b:1"]);
        for leader in [&b""[..], &[0xff, 0xfe], &[b'x'; 300]] {
            assert_eq!(route.on_redirect(leader, Instant(0)), Instant(NO_LEADER_PAUSE_NS));
        }
        assert_eq!(route.address(), "b:1");
    }
}
