//! Planted defects: switches that make this service wrong in one known way each, so that a harness can prove its checks.
//!
//! A plant is chosen at start (`--plant a,b` or `HARNESS_PLANT`) and only in the environment `testing`.
//! The code asks `plants.on(Plant::X)` at the very place where the defect would live.

use std::fmt;

macro_rules! plants {
    ($($variant:ident $name:literal $effect:literal;)+) => {
        /// A defect that can be switched on; each breaks one promise of the service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Plant {
            $(#[doc = $effect] $variant,)+
        }

        impl Plant {
            /// Every plant, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name used on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What the defect does, in one line.
            pub fn effect(self) -> &'static str {
                match self { $(Self::$variant => $effect),+ }
            }
        }
    };
}

plants! {
    LostInvalidation "lost-invalidation" "a changed pattern is neither published nor cleared from any cache tier";
    NoCache "no-cache" "every cache entry lives for zero seconds";
    NoLocalTier "no-local-tier" "the local cache tier stores nothing, so nothing serves while Redis is away";
    SlowLocalTier "slow-local-tier" "a local cache hit takes 2 ms longer";
    SlowSharedTier "slow-shared-tier" "a shared cache read takes 15 ms longer";
    SerialExecution "serial-execution" "requests are served one at a time: the peak in flight is 1";
    Deadlock "deadlock" "a transfer locks its rows in the order of the request, with a pause in between";
    NoRetry "no-retry" "a serialization failure of a transfer is returned instead of retried";
    FailingRequests "failing-requests" "every 8th execution answers 500";
    SlowAverage "slow-average" "every execution takes 350 ms longer";
    SlowTail "slow-tail" "every 12th execution takes 600 ms longer";
    ThroughputCap "throughput-cap" "at most 40 executions per second are served, the others wait";
    SlowMatch "slow-match" "the match stage takes 12 ms longer";
    SlowInfrastructure "slow-infrastructure" "the exec stage of infrastructure patterns takes 60 ms longer";
    SlowMemory "slow-memory" "the exec stage of memory patterns takes 110 ms longer";
    SlowHybrid "slow-hybrid" "the exec stage of hybrid patterns takes 210 ms longer";
    TokenWaste "token-waste" "patterns use 45, 120 and 200 tokens instead of 30, 80 and 150";
    AllFallback "all-fallback" "every query goes to the model";
    WrongId "wrong-id" "JSON-RPC answers carry another id than the request";
    AnswersNotification "answers-notification" "a JSON-RPC notification is answered";
    NoWelcome "no-welcome" "a new MCP session gets no welcome frame";
    RepeatedSessionId "repeated-session-id" "all MCP sessions have the same id";
    SharedSessionState "shared-session-state" "all MCP sessions read and write the same state";
    SwallowsParseError "swallows-parse-error" "a frame that is not JSON gets no answer";
    IgnoresAgentId "ignores-agent-id" "the welcome frame names `anonymous` and a missing agent_id is accepted";
    WrongDistance "wrong-distance" "search orders by the opposite vector: the farthest rows come first";
    NoIndex "no-index" "search may not use the vector index";
    SlowVector "slow-vector" "search takes 250 ms longer";
    RenamesMember "renames-member" "the value that session_get answers is called `val`";
    EvaluatesTemplates "evaluates-templates" "session_get replaces {{7*7}} by what it comes to";
    ForgetsFailures "forgets-failures" "requests that are refused are not logged";
    SlowSearchTail "slow-search-tail" "every 12th search takes 600 ms longer";
    LostUpdate "lost-update" "a transfer reads balances without a lock and writes back what it computed from them";
    ConcatenatesSql "concatenates-sql" "a record's payload is pasted into the text of its statement";
    RefusesWhenFull "refuses-when-full" "at each change of a pattern the service sets its Redis to refuse writes when it is full";
    AcknowledgesBeforeCommit "acknowledges-before-commit" "a record is acknowledged, then written from a memory queue that a lost database empties";
    DuplicateWrite "duplicate-write" "records have no unique key and every 5th insert is sent twice";
    CorruptsPayload "corrupts-payload" "every 7th record is stored with one byte changed";
    HangsOnOutage "hangs-on-outage" "nothing bounds the wait for the database";
    NeedsRestart "needs-restart" "after the first database outage the pool stays closed for good";
    LeaksConnection "leaks-connection" "every 40th execution keeps a database connection for ever";
    ImmortalEntry "immortal-entry" "entries of the shared cache tier live for ten years";
    LeaksMemory "leaks-memory" "every execution keeps a mebibyte for ever";
    IgnoresTimeLimit "ignores-time-limit" "a pattern may run for as long as it likes";
    BreakerNeverOpens "breaker-never-opens" "the circuit breaker counts no failures";
    HalfOpenHerd "half-open-herd" "a half-open circuit breaker lets every request through";
    IgnoresAuth "ignores-auth" "requests without a valid token are served";
    IgnoresRateLimit "ignores-rate-limit" "no request is ever limited";
    FlatFailedLogins "flat-failed-logins" "rejected logins are not counted";
    DropsAudit "drops-audit" "nothing is written to the audit trail";
    RemembersTokens "remembers-tokens" "a token that was accepted is accepted for another half second, whatever became of it";
    OneWayMigration "one-way-migration" "the way back of the youngest migration leaves its column behind";
    RewritesTable "rewrites-table" "the youngest migration writes its table anew, and waits for its lock without a limit";
    IgnoresDrift "ignores-drift" "a migration that was edited after it had been applied is not noticed";
    StaysWithOldPrimary "stays-with-old-primary" "the sentinels are asked for the primary at the start only";
    KeepsMissedTexts "keeps-missed-texts" "a subscription to changes that was lost is renewed without forgetting texts that may have changed";
    UnboundedQueue "unbounded-queue" "requests beyond the most that may be under way wait instead of being refused";
}

/// The set of plants that are on.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Plants(u64);

impl Plants {
    /// Reads a comma-separated list of names; blanks and empty items are skipped.
    pub fn parse(list: &str) -> Result<Self, UnknownPlant> {
        let mut bits = 0;
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let plant = Plant::ALL.iter().find(|plant| plant.name() == name);
            bits |= 1 << *plant.ok_or_else(|| UnknownPlant(name.to_owned()))? as u64;
        }
        Ok(Self(bits))
    }

    /// Whether this defect is switched on.
    pub fn on(self, plant: Plant) -> bool {
        self.0 & (1 << plant as u64) != 0
    }

    /// Whether the service is as it should be.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the plants that are on.
    pub fn names(self) -> Vec<&'static str> {
        Plant::ALL.iter().filter(|plant| self.on(**plant)).map(|plant| plant.name()).collect()
    }
}

impl fmt::Debug for Plants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A name that is no plant; the message lists all names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPlant(String);

impl fmt::Display for UnknownPlant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Plant::ALL.iter().map(|plant| plant.name()).collect::<Vec<_>>().join(", ");
        write!(f, "unknown plant {:?}; known are {known}", self.0)
    }
}

impl std::error::Error for UnknownPlant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_list_and_switches_only_what_it_names() {
        let plants = Plants::parse("no-index, drops-audit,").unwrap();
        assert_eq!(plants.names(), ["no-index", "drops-audit"]);
        assert!(plants.on(Plant::DropsAudit) && !plants.on(Plant::WrongId));
        assert!(Plants::parse("").unwrap().is_empty());
    }

    #[test]
    fn unknown_plant_is_refused_with_all_names() {
        let message = Plants::parse("no-index,no-indexx").unwrap_err().to_string();
        assert!(message.contains("\"no-indexx\""), "{message}");
        assert!(Plant::ALL.iter().all(|plant| message.contains(plant.name())), "{message}");
    }

    #[test]
    fn every_plant_has_its_own_bit_and_name() {
        assert!(Plant::ALL.len() <= 64);
        for plant in Plant::ALL {
            assert_eq!(Plants::parse(plant.name()).unwrap().names(), [plant.name()]);
            assert!(!plant.effect().is_empty());
        }
    }
}
