//! How long scenarios measure, by profile, and what each of them takes: the one place where lengths are written.
//!
//! `smoke` has every scenario in its shortest form that still gives evidence: a 95th percentile wants a hundred samples, a
//! 99th five hundred. There, figures of one kind are taken from one load. `default` is what a release is decided by on a small
//! machine. `full` measures for as long as the slots of the 90-minute timeline allow.

use std::time::Duration;

use harness_core::campaign::{Profile, Scenario};

/// The chosen profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Smoke,
    Default,
    Full,
}

impl Pace {
    /// By its name; the campaign knows no other names.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "smoke" => Self::Smoke,
            "full" => Self::Full,
            _ => Self::Default,
        }
    }

    /// That of a scenario.
    pub(crate) fn of<C>(cx: &Scenario<C>) -> Self {
        Self::named(cx.profile())
    }

    fn pick<T>(self, [smoke, default, full]: [T; 3]) -> T {
        match self {
            Self::Smoke => smoke,
            Self::Default => default,
            Self::Full => full,
        }
    }
}

macro_rules! lengths {
    ($($name:ident $smoke:literal $default:literal $full:literal $about:literal;)+) => {
        impl Pace {
            $(#[doc = $about]
            pub(crate) fn $name(self) -> Duration {
                Duration::from_millis(self.pick([$smoke, $default, $full]))
            })+
        }
    };
}

macro_rules! counts {
    ($($name:ident $smoke:literal $default:literal $full:literal $about:literal;)+) => {
        impl Pace {
            $(#[doc = $about]
            pub(crate) fn $name(self) -> usize {
                self.pick([$smoke, $default, $full])
            })+
        }
    };
}

// Milliseconds in smoke, default and full.
lengths! {
    mix_warm_up        700  1_000   10_000 "A5 to A7: before the usual mix is measured.";
    mix                1_500  4_000  120_000 "A5 to A7: the usual mix.";
    pool_warm_up       500  1_000    5_000 "C3: until the pool has its size.";
    pool               1_200 4_000 60_000 "C3: the steady load.";
    connections        2_000  8_000  120_000 "C8: the load under which sessions are counted.";
    latency_warm_up    500  3_000   30_000 "E1: before latency is measured.";
    latency            4_800 10_000  300_000 "E1: latency; in smoke the load of C8, E1, E2 and E7.";
    throughput_warm_up 500  1_000   10_000 "E2: before throughput is measured.";
    throughput         2_000  8_000  300_000 "E2: throughput.";
    calm_before        2_200 4_000 30_000 "E3: the calm load that is come back to.";
    stress             1_000  6_000   60_000 "E3: a hundred workers.";
    back_within        2_000 5_000 5_000 "E3: how soon calm has to be back.";
    soak_warm_up       500  2_000   30_000 "E7: before resources are watched.";
    soak               4_000 15_000  600_000 "E7: how long resources are watched.";
    hits_warm_up       700 2_000 10_000 "E8: until both tiers are warm.";
    hits               1_200 5_000 60_000 "E8: cache reads are counted.";
    before_outage      800 3_000 10_000 "F1: writes before the fault.";
    outage             1_200 4_000 30_000 "F1: Postgres is away.";
    killed_for         1_000  2_000   20_000 "F5: Postgres is dead.";
    steady             500  1_000    5_000 "F1, F5: how long the service has to be well before and after.";
    silent_for         1_000  1_500    5_000 "D2: how long a primary is silent before sentinels take it for dead.";
    probe              800  1_500   15_000 "F6: a rate below or at the capacity.";
    overload           1_500  3_000   60_000 "F6: twice the capacity.";
    breaker_open         400  1_000    1_000 "F4: how long the circuit breaker stays open.";
    calm_longer        1_500  3_000   10_000 "E3: how much longer calm is watched than it may take.";
    rate_limit         2_000  5_000   30_000 "B8: how long the rate limit is looked for at most.";
}

counts! {
    search_rounds      2   6    60 "C1: searches of each of the 64 members.";
    coherence_rounds   1   3    50 "A2, D3: rounds of reads and writes.";
    crossing_rounds    2   6    60 "A4: transfers of each agent.";
    crossing_transfers 60 120 2_000 "C2: transfers.";
    searches           100 120 2_000 "C5, C6: searches; a 95th percentile wants a hundred.";
    invalidations      100 120 2_000 "D1: writes; likewise.";
    expiring           20  60   600 "D4: requests that fill the shared tier.";
    tier_reads         20  40   400 "D6, D7: reads of a tier.";
    token_requests     100 400 4_000 "E4, E6: requests whose tokens are counted.";
    staged             40 120 1_200 "E5: requests of each class.";
    routed             6  30   300 "F7: queries of each kind.";
    ending_tokens      4  8   40 "B8: tokens that end while they are used, by revocation and by their time.";
}

/// What each scenario takes, in tenths of a second: smoke, default, full. Measured, and rounded up.
const TAKES: [(&str, u64, u64, u64); 47] = [
    ("A1", 5, 5, 5),
    ("A2", 10, 21, 320),
    ("A3", 5, 5, 5),
    ("A4", 30, 55, 105),
    ("A5", 25, 53, 1_310),
    ("A6", 1, 53, 1_310),
    ("A7", 1, 53, 1_310),
    ("A8", 26, 26, 35),
    ("B1", 27, 27, 27),
    ("B2", 1, 1, 1),
    ("B3", 1, 1, 1),
    ("B4", 1, 1, 1),
    ("B5", 1, 1, 1),
    ("B6", 1, 1, 1),
    ("B7", 2, 2, 2),
    ("B8", 57, 58, 320),
    ("C1", 20, 21, 16),
    ("C2", 6, 8, 80),
    ("C3", 20, 53, 660),
    ("C4", 70, 49, 25),
    ("C5", 1, 1, 20),
    ("C6", 1, 1, 20),
    ("C7", 4, 4, 4),
    ("C8", 55, 87, 1_210),
    ("C9", 4, 4, 4),
    ("D1", 40, 29, 260),
    ("D2", 68, 90, 200),
    ("D3", 35, 52, 350),
    ("D4", 8, 21, 210),
    ("D5", 50, 25, 31),
    ("D6", 1, 1, 3),
    ("D7", 9, 14, 100),
    ("E1", 1, 132, 3_310),
    ("E2", 1, 92, 3_110),
    ("E3", 72, 180, 1_000),
    ("E4", 6, 20, 190),
    ("E5", 8, 22, 220),
    ("E6", 1, 19, 190),
    ("E7", 1, 172, 6_310),
    ("E8", 1, 73, 710),
    ("F1", 66, 190, 1_010),
    ("F2", 30, 30, 29),
    ("F3", 21, 21, 23),
    ("F4", 26, 37, 38),
    ("F5", 55, 74, 350),
    ("F6", 41, 140, 1_200),
    ("F7", 5, 20, 160),
];

/// The profiles of the campaign.
pub(crate) fn profiles() -> [Profile; 3] {
    let times = |pick: fn(&(&'static str, u64, u64, u64)) -> u64| {
        TAKES.iter().map(move |row| (row.0, Duration::from_millis(100 * pick(row)))).collect::<Vec<_>>()
    };
    let start = Duration::from_secs(4);
    [
        Profile::new("smoke", "every scenario in its shortest form")
            .within(Duration::from_secs(60))
            .side_by_side()
            .starts_in(start)
            .takes(times(|row| row.1)),
        Profile::new("default", "what a release is decided by")
            .within(Duration::from_secs(8 * 60))
            .starts_in(start)
            .takes(times(|row| row.2)),
        Profile::new("full", "the slots of the 90-minute timeline")
            .within(Duration::from_secs(90 * 60))
            .starts_in(start)
            .keeps_slots()
            .limits_times(12)
            .takes(times(|row| row.3)),
    ]
}
