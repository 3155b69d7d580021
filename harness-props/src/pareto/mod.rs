//! Dominance and the Pareto front, for any number of objectives from 1 to 32.
//!
//! A point dominates another when it is at least as good in every objective and better in one. The front is what
//! nothing dominates. Equal points do not dominate one another: all of them are on the front, or with
//! [`Duplicates::First`] the first of them.
//!
//! ```
//! use harness_props::pareto::{Duplicates, Points, Sense};
//!
//! let mut points = Points::new(&[Sense::Maximise, Sense::Minimise])?; // safety, delay
//! for point in [[90.0, 30.0], [80.0, 10.0], [70.0, 20.0], [80.0, 10.0]] {
//!     points.push(&point)?;
//! }
//! assert_eq!(points.front(Duplicates::Keep), [0, 1, 3]);
//! assert_eq!(points.dominated(), [(2, 1)]); // 2 is dominated, 1 is the witness
//! assert!(points.push(&[f64::NAN, 1.0]).is_err());
//! # Ok::<(), harness_props::rule::Refusal>(())
//! ```

mod front;

use serde::{Deserialize, Serialize};

use crate::rule::{Refusal, RefusalKind};

/// Whether less or more of an objective is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// Less is better.
    Minimise,
    /// More is better.
    Maximise,
}

/// What becomes of points that are equal in every objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Duplicates {
    /// All of them are on the front, or none.
    Keep,
    /// Only the first is.
    First,
}

/// Points with one finite number per objective.
#[derive(Debug, Clone)]
pub struct Points {
    senses: Vec<Sense>,
    /// Row by row, turned so that less is better.
    values: Vec<f64>,
}

/// Most objectives that are supported.
const OBJECTIVES: usize = 32;

impl Points {
    /// No points yet, of these objectives.
    ///
    /// # Errors
    /// No objective, or more than 32.
    pub fn new(senses: &[Sense]) -> Result<Self, Refusal> {
        if senses.is_empty() || senses.len() > OBJECTIVES {
            let why = format!("{} objectives; there can be 1 to {OBJECTIVES}", senses.len());
            return Err(Refusal::new(RefusalKind::Shape, why));
        }
        Ok(Self { senses: senses.to_vec(), values: Vec::new() })
    }

    /// Adds a point.
    ///
    /// # Errors
    /// Another number of values than of objectives, NaN or an infinity, or more than 2³² − 1 points.
    pub fn push(&mut self, point: &[f64]) -> Result<(), Refusal> {
        if point.len() != self.senses.len() || self.len() >= u32::MAX as usize {
            let why = format!("{} values for {} objectives", point.len(), self.senses.len());
            return Err(Refusal::new(RefusalKind::Shape, why));
        }
        if let Some(bad) = point.iter().find(|value| !value.is_finite()) {
            return Err(Refusal::new(RefusalKind::Number, format!("{bad} cannot be compared")));
        }
        // Adding zero makes -0 a 0.
        self.values.extend(point.iter().zip(&self.senses).map(|(value, sense)| match sense {
            Sense::Minimise => value + 0.0,
            Sense::Maximise => 0.0 - value,
        }));
        Ok(())
    }

    /// Number of points.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.senses.len()
    }

    /// True without points.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn row(&self, point: usize) -> &[f64] {
        &self.values[point * self.senses.len()..(point + 1) * self.senses.len()]
    }

    /// True when one point dominates the other.
    #[must_use]
    pub fn dominates(&self, one: usize, other: usize) -> bool {
        let (one, other) = (self.row(one), self.row(other));
        one.iter().zip(other).all(|(one, other)| one <= other) && one != other
    }

    /// The points on the front, in order.
    ///
    /// Sorting for two objectives, a sweep for three (Kung, Luccio, Preparata 1975); beyond, a filter in order of sums
    /// that turns to divide and conquer (Bentley 1980) when the front grows large.
    #[must_use]
    pub fn front(&self, duplicates: Duplicates) -> Vec<usize> {
        front::of(&self.values, self.senses.len(), duplicates == Duplicates::Keep)
    }

    /// Every dominated point with one point of the front that dominates it.
    #[must_use]
    pub fn dominated(&self) -> Vec<(usize, usize)> {
        let front = self.front(Duplicates::First);
        let mut on_front = vec![false; self.len()];
        front.iter().for_each(|point| on_front[*point] = true);
        let rest = (0..self.len()).filter(|point| !on_front[*point]);
        rest.filter_map(|point| Some((point, *front.iter().find(|by| self.dominates(**by, point))?))).collect()
    }
}

/// Volume of what a few points dominate down to a reference, all maximised and in whole numbers; exact, by slicing one
/// objective after the other (While and others 2006). Points below the reference count nothing.
///
/// # Errors
/// Points of different lengths, more than 64 points, or a volume that does not fit.
pub fn hypervolume(points: &[Vec<i64>], reference: &[i64]) -> Result<i128, Refusal> {
    if points.len() > 64 || points.iter().any(|point| point.len() != reference.len()) || reference.is_empty() {
        return Err(Refusal::new(RefusalKind::Shape, "a hypervolume takes up to 64 points of one length"));
    }
    let inside: Vec<Vec<i128>> = points
        .iter()
        .map(|point| {
            point.iter().zip(reference).map(|(value, least)| i128::from(*value) - i128::from(*least)).collect()
        })
        .filter(|point: &Vec<i128>| point.iter().all(|value| *value > 0))
        .collect();
    slices(&inside, 0).ok_or_else(|| Refusal::new(RefusalKind::Number, "the hypervolume overflows"))
}

fn slices(points: &[Vec<i128>], objective: usize) -> Option<i128> {
    let Some(first) = points.first() else { return Some(0) };
    if objective + 1 == first.len() {
        return points.iter().map(|point| point[objective]).max();
    }
    let mut sorted: Vec<Vec<i128>> = points.to_vec();
    sorted.sort_by(|one, other| other[objective].cmp(&one[objective]));
    let mut volume = 0_i128;
    for at in 0..sorted.len() {
        let below = sorted.get(at + 1).map_or(0, |next| next[objective]);
        let depth = sorted[at][objective] - below;
        if depth > 0 {
            volume = volume.checked_add(depth.checked_mul(slices(&sorted[..=at], objective + 1)?)?)?;
        }
    }
    Some(volume)
}

#[cfg(test)]
mod tests;
