//! The judge itself: one structure, asked three times per read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::verdict::{Arrivals, CacheVerdict, Deaf, Offence};
use super::{CacheHistory, Read, Write};

/// What somebody knew at which time: of the writes known before a moment, the one that began last.
#[derive(Default)]
struct Known {
    /// When a write became known, and which; sorted by [`Known::sort`], then each entry names the newest so far.
    entries: Vec<(Duration, usize)>,
}

impl Known {
    fn learn(&mut self, at: Duration, write: usize) {
        self.entries.push((at, write));
    }

    fn sort(&mut self, writes: &[Write]) {
        self.entries.sort_unstable();
        let mut newest: Option<usize> = None;
        for (_, write) in &mut self.entries {
            if let Some(best) = newest.filter(|best| writes[*best].invoked >= writes[*write].invoked) {
                *write = best;
            }
            newest = Some(*write);
        }
    }

    /// The newest write known strictly before `at`.
    fn before(&self, at: Duration) -> Option<usize> {
        let known = self.entries.partition_point(|(when, _)| *when < at);
        Some(self.entries[known.checked_sub(1)?].1)
    }
}

/// All that is known, by whom.
#[derive(Default)]
struct Index<'h> {
    versions: HashMap<(&'h str, u64), usize>,
    everybody: HashMap<&'h str, Known>,
    deletions: HashMap<&'h str, Known>,
    sessions: HashMap<(&'h str, &'h str), Known>,
    returned: HashMap<(&'h str, &'h str), Known>,
}

impl<'h> Index<'h> {
    fn new(history: &'h CacheHistory, inconsistent: &mut Vec<String>) -> Self {
        let mut index = Self::default();
        for (n, write) in history.writes.iter().enumerate() {
            if *index.versions.entry((&write.key, write.version)).or_insert(n) != n {
                inconsistent.push(format!("version {} of `{}` was written twice", write.version, write.key));
            }
            let Some(at) = write.acknowledged else { continue };
            if at < write.invoked {
                inconsistent
                    .push(format!("version {} of `{}` was acknowledged before it began", write.version, write.key));
            }
            index.everybody.entry(&write.key).or_default().learn(at, n);
            index.sessions.entry((&write.session, &write.key)).or_default().learn(at, n);
            if write.is_deletion {
                index.deletions.entry(&write.key).or_default().learn(at, n);
            }
        }
        let Self { everybody, deletions, sessions, .. } = &mut index;
        let all = everybody.values_mut().chain(deletions.values_mut());
        all.chain(sessions.values_mut()).for_each(|known| known.sort(&history.writes));
        for read in &history.reads {
            if read.returned < read.invoked {
                inconsistent.push(format!("a read of `{}` at `{}` returned before it began", read.key, read.instance));
            }
            // A key that is absent after its deletion was seen deleted.
            let seen = match read.seen {
                Some(version) => index.versions.get(&(&*read.key, version)).copied(),
                None => index.deletions.get(&*read.key).and_then(|known| known.before(read.invoked)),
            };
            if let Some(write) = seen {
                index.returned.entry((&read.instance, &read.key)).or_default().learn(read.returned, write);
            }
        }
        index.returned.values_mut().for_each(|known| known.sort(&history.writes));
        index
    }
}

fn newest<K: std::hash::Hash + Eq>(map: &HashMap<K, Known>, key: &K, at: Duration) -> Option<usize> {
    map.get(key)?.before(at)
}

pub(super) fn judge(history: &CacheHistory, bound: Duration) -> CacheVerdict {
    let mut verdict = CacheVerdict {
        bound,
        instances: history.instances.len(),
        writes: history.writes.len(),
        acknowledged: history.writes.iter().filter(|write| write.acknowledged.is_some()).count(),
        reads: history.reads.len(),
        failed_reads: history.failed_reads,
        ..CacheVerdict::default()
    };
    if history.reads.iter().any(|read| read.from_copy.is_some()) {
        verdict.from_copies = Some(history.reads.iter().filter(|read| read.from_copy == Some(true)).count());
    }
    let index = Index::new(history, &mut verdict.inconsistent);
    let (arrivals, missed) = arrivals(history);
    let deaf: BTreeSet<&str> = deaf(&arrivals);
    let mut charges = Charges::default();
    let mut tested: BTreeSet<&str> = BTreeSet::new();
    for read in &history.reads {
        let Some(version) = read.seen else {
            verdict.absent += 1;
            continue;
        };
        let written = index.versions.get(&(&*read.key, version)).copied();
        let Some(seen) = written.filter(|write| history.writes[*write].invoked <= read.returned) else {
            charges.add(Charge::Phantom, read, version, None, bound, false);
            continue;
        };
        verdict.judged += 1;
        let found = Findings::of(history, &index, read, seen, bound);
        verdict.own_reads += usize::from(found.has_own);
        verdict.repeated += usize::from(found.has_earlier);
        if found.past_bound {
            verdict.past_bound += 1;
            tested.insert(&read.instance);
        }
        if let Some((charge, newer)) = found.charge(deaf.contains(&*read.instance)) {
            let newer = &history.writes[newer];
            let lost = missed.contains(&(&read.instance, &newer.key, newer.version));
            charges.add(charge, read, version, Some(newer), bound, lost);
        }
    }
    verdict.untested = history.instances.iter().filter(|name| !tested.contains(name.as_str())).cloned().collect();
    verdict.arrivals = arrivals.into_values().collect();
    charges.into_verdict(&mut verdict);
    verdict
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Charge {
    Phantom,
    Resurrected,
    Backwards,
    OwnWriteMissed,
    Deaf,
    Stale,
}

/// Which of the three that may know better knew better about one read.
struct Findings {
    by_instance: Option<usize>,
    by_session: Option<usize>,
    by_everybody: Option<usize>,
    has_own: bool,
    has_earlier: bool,
    /// Another instance replaced a version longer ago than the bound: an old one could have come, and would be charged.
    past_bound: bool,
}

impl Findings {
    fn of(history: &CacheHistory, index: &Index<'_>, read: &Read, seen: usize, bound: Duration) -> Self {
        let end = history.writes[seen].acknowledged;
        let newer = |write: &usize| end.is_some_and(|end| history.writes[*write].invoked > end);
        let (instance, session, key) = (&*read.instance, &*read.session, &*read.key);
        // Later than the bound: what was acknowledged strictly before this moment is old enough.
        let due = read.invoked.checked_sub(bound);
        let own = newest(&index.sessions, &(session, key), read.invoked);
        let earlier = newest(&index.returned, &(instance, key), read.invoked);
        let all = due.and_then(|due| newest(&index.everybody, &key, due));
        let replaced = due.is_some_and(|due| count_before(&index.everybody, &key, due) > 1);
        Self {
            by_instance: earlier.filter(newer),
            by_session: own.filter(newer),
            by_everybody: all.filter(newer),
            has_own: own.is_some(),
            has_earlier: earlier.is_some(),
            past_bound: replaced && all.is_some_and(|newest| history.writes[newest].instance != read.instance),
        }
    }

    fn charge(&self, deaf: bool) -> Option<(Charge, usize)> {
        match (self.by_instance, self.by_session, self.by_everybody) {
            (Some(newer), _, Some(_)) => Some((Charge::Resurrected, newer)),
            (Some(newer), _, None) => Some((Charge::Backwards, newer)),
            (None, Some(newer), _) => Some((Charge::OwnWriteMissed, newer)),
            (None, None, Some(newer)) if deaf => Some((Charge::Deaf, newer)),
            (None, None, Some(newer)) => Some((Charge::Stale, newer)),
            (None, None, None) => None,
        }
    }
}

fn count_before<K: std::hash::Hash + Eq>(map: &HashMap<K, Known>, key: &K, at: Duration) -> usize {
    map.get(key).map_or(0, |known| known.entries.partition_point(|(when, _)| *when < at))
}

/// Offences, one entry per instance, key and version, with its first witness.
#[derive(Default)]
struct Charges<'h>(BTreeMap<(Charge, &'h str, &'h str, u64), Offence>);

impl<'h> Charges<'h> {
    fn add(
        &mut self,
        charge: Charge,
        read: &'h Read,
        seen: u64,
        newer: Option<&Write>,
        bound: Duration,
        invalidation_lost: bool,
    ) {
        let entry = self.0.entry((charge, &read.instance, &read.key, seen)).or_insert_with(|| Offence {
            instance: read.instance.clone(),
            session: read.session.clone(),
            key: read.key.clone(),
            seen,
            newer: newer.map(|write| write.version),
            newer_by: newer.map(|write| write.instance.clone()),
            is_deleted: newer.is_some_and(|write| write.is_deletion),
            acknowledged: newer.and_then(|write| write.acknowledged),
            invoked: read.invoked,
            bound,
            invalidation_lost,
            times: 0,
            last: read.invoked,
        });
        entry.times += 1;
        entry.last = entry.last.max(read.invoked);
    }

    fn into_verdict(self, verdict: &mut CacheVerdict) {
        let mut deaf: BTreeMap<&str, Vec<Offence>> = BTreeMap::new();
        for ((charge, instance, ..), offence) in self.0 {
            match charge {
                Charge::Phantom => verdict.phantom.push(offence),
                Charge::Resurrected => verdict.resurrected.push(offence),
                Charge::Backwards => verdict.backwards.push(offence),
                Charge::OwnWriteMissed => verdict.own_write_missed.push(offence),
                Charge::Stale => verdict.stale.push(offence),
                Charge::Deaf => deaf.entry(instance).or_default().push(offence),
            }
        }
        let expected = |name: &str| {
            let found = verdict.arrivals.iter().find(|arrivals| arrivals.instance == name);
            found.map_or(0, |arrivals| arrivals.expected)
        };
        let deaf =
            deaf.into_iter().map(|(name, stale)| Deaf { instance: name.to_owned(), expected: expected(name), stale });
        verdict.deaf = deaf.collect();
    }
}

type Missed<'h> = BTreeSet<(&'h str, &'h str, u64)>;

/// For each instance which invalidations of others reached it, how late, and which never did.
fn arrivals(history: &CacheHistory) -> (BTreeMap<&str, Arrivals>, Missed<'_>) {
    let mut received: HashMap<(&str, &str, u64), Duration> = HashMap::new();
    for message in &history.received {
        let at = received.entry((&message.instance, &message.key, message.version)).or_insert(message.at);
        *at = (*at).min(message.at);
    }
    let (mut arrivals, mut missed) = (BTreeMap::new(), Missed::new());
    if history.published.is_empty() {
        return (arrivals, missed);
    }
    for name in &history.instances {
        let mut found = Arrivals { instance: name.clone(), ..Arrivals::default() };
        for sent in history.published.iter().filter(|sent| sent.instance != *name) {
            found.expected += 1;
            match received.get(&(name.as_str(), &*sent.key, sent.version)) {
                Some(at) => found.delays.push(at.saturating_sub(sent.at)),
                None => {
                    found.missed.push((sent.key.clone(), sent.version));
                    missed.insert((name, &sent.key, sent.version));
                }
            }
        }
        found.delays.sort_unstable();
        arrivals.insert(name.as_str(), found);
    }
    (arrivals, missed)
}

/// Instances that heard nothing while others heard something. When nobody reports what it hears, nobody is deaf.
fn deaf<'h>(arrivals: &BTreeMap<&'h str, Arrivals>) -> BTreeSet<&'h str> {
    if arrivals.values().all(|found| found.delays.is_empty()) {
        return BTreeSet::new();
    }
    let silent = |found: &Arrivals| found.expected > 0 && found.delays.is_empty();
    arrivals.iter().filter(|(_, found)| silent(found)).map(|(name, _)| *name).collect()
}
