//! What rules look at: a compact graph with names, and whatever else was supplied.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use super::critical::{CriticalPath, Undefined};
use super::graph::Order;
use super::model::{Id, Link, Plan, Step, Ticks, Tie};
use super::policy::Policy;
use crate::rule::{Refusal, RefusalKind, Subject as RuleSubject};

/// A dependency that leads nowhere.
pub(crate) const NOWHERE: u32 = u32::MAX;
/// No duration was given.
pub(crate) const ABSENT: i64 = i64::MIN;
/// What was given is no duration.
pub(crate) const REFUSED: i64 = i64::MIN + 1;

/// Lags of a dependency that is not a plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bond {
    pub(crate) tie: Tie,
    pub(crate) lag: i64,
    pub(crate) max_lag: Option<i64>,
}

/// How paths in reports are written: the list's name and the user's own field names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// Pointer to the list of steps; default `/steps`.
    pub(crate) root: Option<String>,
    /// Ours and theirs.
    pub(crate) names: Vec<(String, String)>,
}

impl Paths {
    pub(crate) fn step(&self, step: usize, field: &str) -> String {
        let root = self.root.as_deref().unwrap_or("/steps");
        if field.is_empty() { format!("{root}/{step}") } else { format!("{root}/{step}/{}", self.renamed(field)) }
    }

    pub(crate) fn plan(&self, field: &str) -> String {
        match field {
            "steps" => self.root.clone().unwrap_or_else(|| "/steps".to_owned()),
            field => format!("/{}", self.renamed(field)),
        }
    }

    fn renamed(&self, field: &str) -> String {
        let (first, rest) = field.split_once('/').map_or((field, ""), |(first, rest)| (first, rest));
        let theirs = self.names.iter().find(|(ours, _)| ours == first).map_or(first, |(_, theirs)| theirs);
        if rest.is_empty() { theirs.to_owned() } else { format!("{theirs}/{rest}") }
    }
}

/// A plan in the form that rules read.
///
/// Steps are indices in list order. Dependencies are one array with offsets (compressed sparse rows): 4 bytes each.
/// A dependency resolves to the *first* step of that name; rule P002 reports the others.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub(crate) ids: Vec<Id>,
    pub(crate) numbers: Vec<i64>,
    pub(crate) durations: Vec<i64>,
    pub(crate) refused: Vec<(u32, String)>,
    pub(crate) offsets: Vec<u32>,
    pub(crate) targets: Vec<u32>,
    pub(crate) bonds: Vec<Bond>,
    pub(crate) dangling: Vec<(u32, u32, Id)>,
    pub(crate) repeated: Vec<(u32, u32)>,
    pub(crate) steps: Vec<Step>,
    pub(crate) charter: Plan,
    pub(crate) facets: BTreeSet<&'static str>,
    pub(crate) paths: Paths,
}

/// A cheap hash for ids that are numbers; texts go through the same mixing byte by byte in words of eight.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}

/// From names to indices.
enum Names<'a> {
    /// Numbers that lie close together: a table.
    Dense {
        least: u64,
        table: Vec<u32>,
    },
    Sparse(HashMap<&'a Id, u32, BuildHasherDefault<IdHasher>>),
}

impl<'a> Names<'a> {
    fn of(ids: &'a [Id], repeated: &mut Vec<(u32, u32)>) -> Self {
        let mut bounds = Some((u64::MAX, 0));
        for id in ids {
            bounds = match (bounds, id) {
                (Some((least, most)), Id::Number(number)) => Some((least.min(*number), most.max(*number))),
                _ => None,
            };
            if bounds.is_none() {
                break;
            }
        }
        let dense = bounds.filter(|(least, most)| most.wrapping_sub(*least) / 4 <= ids.len() as u64 && !ids.is_empty());
        if let Some((least, most)) = dense {
            let mut table = vec![NOWHERE; (most - least) as usize + 1];
            for (index, id) in ids.iter().enumerate() {
                let Id::Number(number) = id else { continue };
                let seat = &mut table[(number - least) as usize];
                if *seat == NOWHERE { *seat = index as u32 } else { repeated.push((*seat, index as u32)) }
            }
            return Self::Dense { least, table };
        }
        let mut map = HashMap::with_capacity_and_hasher(ids.len(), BuildHasherDefault::default());
        for (index, id) in ids.iter().enumerate() {
            let first = *map.entry(id).or_insert(index as u32);
            if first != index as u32 {
                repeated.push((first, index as u32));
            }
        }
        Self::Sparse(map)
    }

    fn find(&self, id: &Id) -> Option<u32> {
        match (self, id) {
            (Self::Dense { least, table }, Id::Number(number)) => {
                let seat = usize::try_from(number.checked_sub(*least)?).ok()?;
                table.get(seat).copied().filter(|index| *index != NOWHERE)
            }
            (Self::Dense { .. }, Id::Text(_)) => None,
            (Self::Sparse(map), id) => map.get(id).copied(),
        }
    }
}

impl View {
    /// Builds a view of `count` steps: their names, and a function that lists what each waits for.
    pub(crate) fn build(ids: Vec<Id>, mut after: impl FnMut(usize, &mut Vec<Link>)) -> Result<Self, Refusal> {
        let too_many = |what| Refusal::new(RefusalKind::Shape, format!("more than 4,294,967,294 {what}"));
        if ids.len() >= NOWHERE as usize {
            return Err(too_many("steps"));
        }
        let mut view = Self::default();
        let names = Names::of(&ids, &mut view.repeated);
        view.offsets.reserve_exact(ids.len() + 1);
        view.offsets.push(0);
        let mut links = Vec::new();
        for step in 0..ids.len() {
            links.clear();
            after(step, &mut links);
            for (position, link) in links.iter().enumerate() {
                if !link.is_plain() {
                    view.bonds.resize(view.targets.len(), Bond::default());
                    view.bonds.push(Bond { tie: link.tie, lag: link.lag, max_lag: link.max_lag });
                }
                view.targets.push(names.find(&link.on).unwrap_or_else(|| {
                    view.dangling.push((step as u32, position as u32, link.on.clone()));
                    NOWHERE
                }));
            }
            view.offsets.push(u32::try_from(view.targets.len()).map_err(|_| too_many("dependencies"))?);
        }
        if !view.bonds.is_empty() {
            view.bonds.resize(view.targets.len(), Bond::default());
        }
        drop(names);
        view.ids = ids;
        view.facets.insert("after");
        Ok(view)
    }

    pub(crate) fn push_duration(&mut self, duration: Option<Ticks>) {
        let ticks = match duration {
            None => ABSENT,
            Some(Ticks::Whole(ticks)) => ticks,
            Some(Ticks::Refused(text)) => {
                self.refused.push((self.durations.len() as u32, text));
                REFUSED
            }
        };
        self.durations.push(ticks);
    }

    /// Number of steps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True without steps.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Number of dependencies, dangling ones included.
    #[must_use]
    pub fn dependencies(&self) -> usize {
        self.targets.len()
    }

    /// Name of a step.
    #[must_use]
    pub fn id(&self, step: usize) -> &Id {
        &self.ids[step]
    }

    /// The steps a step waits for, by index; dangling ones are left out.
    pub fn after(&self, step: usize) -> impl Iterator<Item = usize> + '_ {
        self.edges(step).map(|edge| self.targets[edge]).filter(|on| *on != NOWHERE).map(|on| on as usize)
    }

    /// Full content of the steps, by index; empty when nothing but graph, numbers and durations was supplied.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What the plan says about itself; it has no steps here.
    #[must_use]
    pub fn charter(&self) -> &Plan {
        &self.charter
    }

    /// Bytes held by the graph, the names, the numbers and the durations.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ids.capacity() * size_of::<Id>()
            + (self.numbers.capacity() + self.durations.capacity()) * 8
            + (self.offsets.capacity() + self.targets.capacity()) * 4
            + self.bonds.capacity() * size_of::<Bond>()
    }

    /// Path of a field of a step; of the step itself for `""`.
    #[must_use]
    pub fn step_path(&self, step: usize, field: &str) -> String {
        self.paths.step(step, field)
    }

    /// Path of a field of the plan.
    #[must_use]
    pub fn plan_path(&self, field: &str) -> String {
        self.paths.plan(field)
    }

    pub(crate) fn edges(&self, step: usize) -> std::ops::Range<usize> {
        self.offsets[step] as usize..self.offsets[step + 1] as usize
    }

    pub(crate) fn bond(&self, edge: usize) -> Bond {
        self.bonds.get(edge).copied().unwrap_or_default()
    }

    /// True when every dependency is "starts after the end" and the sum of all durations fits in 32 bits.
    pub(crate) fn has_short_ticks(&self) -> bool {
        let mut sum = 0_u64;
        let whole = self.durations.iter().all(|ticks| {
            sum = sum.saturating_add(ticks.unsigned_abs());
            *ticks >= 0
        });
        whole && sum < u64::from(u32::MAX) && self.bonds.is_empty() && self.durations.len() == self.len()
    }

    pub(crate) fn find(&self, id: &Id) -> Option<usize> {
        self.ids.iter().position(|known| known == id)
    }
}

/// A view with the policy it is judged by, and the analyses that several rules share.
#[derive(Debug, Default)]
pub struct Subject {
    view: View,
    policy: Policy,
    order: OnceLock<Order>,
    critical: OnceLock<Result<CriticalPath, Undefined>>,
    ancestors: OnceLock<Option<super::graph::Ancestors>>,
}

impl Subject {
    /// Pairs a view with a policy.
    #[must_use]
    pub fn new(view: View, policy: Policy) -> Self {
        Self { view, policy, ..Self::default() }
    }

    /// The plan.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// An order in which every step stands after what it waits for, as far as there is one.
    #[must_use]
    pub fn order(&self) -> &Order {
        self.order.get_or_init(|| Order::of(&self.view))
    }

    /// The critical path method's result, or why there is none.
    ///
    /// # Errors
    /// A cycle, a dangling dependency, a missing duration or a sum that overflows.
    pub fn critical(&self) -> Result<&CriticalPath, Undefined> {
        self.critical.get_or_init(|| CriticalPath::of(&self.view, self.order())).as_ref().map_err(Clone::clone)
    }

    /// Who waits for whom, directly or not; none for plans beyond 4,096 steps or with cycles.
    #[must_use]
    pub fn ancestors(&self) -> Option<&super::graph::Ancestors> {
        self.ancestors.get_or_init(|| super::graph::Ancestors::of(&self.view, self.order())).as_ref()
    }
}

impl RuleSubject for Subject {
    fn supplies(&self, facet: &str) -> bool {
        self.view.facets.contains(facet)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{Hash as _, Hasher as _};

    use super::{IdHasher, Names};
    use crate::plan::Id;

    #[test]
    fn ids_are_spread_whatever_they_are() {
        let hash = |id: &Id| {
            let mut hasher = IdHasher::default();
            id.hash(&mut hasher);
            hasher.finish()
        };
        let ids = (0..1_000_u64)
            .map(Id::Number)
            .chain((0..1_000).map(|n| Id::Text(format!("a rather long name {n}").into())));
        let hashes: std::collections::BTreeSet<u64> = ids.map(|id| hash(&id)).collect();
        assert_eq!(hashes.len(), 2_000);
    }

    #[test]
    fn ids_are_found_by_a_table_only_where_they_lie_close_together() {
        let names = |numbers: &[u64]| {
            let ids: Vec<Id> = numbers.iter().copied().map(Id::Number).collect();
            let mut repeated = Vec::new();
            let names = Names::of(&ids, &mut repeated);
            assert!(ids.iter().all(|id| names.find(id).is_some()) && names.find(&Id::Number(4)).is_none());
            (matches!(names, Names::Dense { .. }), repeated)
        };
        assert_eq!(names(&[7, 5, 6]), (true, vec![]));
        assert_eq!(names(&[7, 5, 7]), (true, vec![(0, 2)]));
        assert_eq!(names(&[1, u64::MAX, 1]), (false, vec![(0, 2)]));
    }
}
