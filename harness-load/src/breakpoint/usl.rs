//! The universal scalability law and the knee.

use std::fmt;

use harness_core::error::{CoreResult, Error, ErrorKind};

/// Throughput by concurrency `N`: `λN / (1 + σ(N − 1) + κN(N − 1))` (Gunther, *Guerrilla Capacity Planning*, 2007, chapter
/// 4). Least squares of the relative errors of its inverse, which is linear in the parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usl {
    /// λ: throughput of one alone, per second.
    pub alone: f64,
    /// σ: share of the work that waits its turn.
    pub contention: f64,
    /// κ: price of agreeing with each other, per pair.
    pub coherency: f64,
    /// Share of the variance of throughput it explains; 1 is all.
    pub r_squared: f64,
}

impl Usl {
    /// Fits `(concurrency, throughput per second)` points; those below a hundredth in flight say nothing and are left out.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] with fewer than four different concurrencies or without any scaling in them.
    pub fn fit(points: impl IntoIterator<Item = (f64, f64)>) -> CoreResult<Self> {
        let usable = |(n, x): &(f64, f64)| n.is_finite() && x.is_finite() && *n >= 0.01 && *x > 0.0;
        let mut points: Vec<(f64, f64)> = points.into_iter().filter(usable).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let distinct = 1 + points.windows(2).filter(|two| two[1].0 > two[0].0 * 1.01).count();
        if points.len() < 4 || distinct < 4 {
            return Err(Error::new(
                ErrorKind::NoEvidence,
                format!("{} points are too few for a law of scaling", points.len()),
            )
            .remedy("probe at four different concurrencies at least"));
        }
        // Without the last term when it comes out negative, then without the middle one: neither can be a gain.
        let fitted = [3, 2, 1].into_iter().find_map(|terms| {
            let terms = least_squares(&points, terms)?;
            (terms[0] > 0.0 && terms[1..].iter().all(|term| *term >= 0.0)).then_some(terms)
        });
        let Some([a, b, c]) = fitted else {
            return Err(Error::new(ErrorKind::NoEvidence, "throughput does not depend on concurrency in these points"));
        };
        let law = Self { alone: 1.0 / a, contention: b / a, coherency: c / a, r_squared: 0.0 };
        let mean = points.iter().map(|(_, x)| x).sum::<f64>() / points.len() as f64;
        let left: f64 = points.iter().map(|(n, x)| (x - law.at(*n)).powi(2)).sum();
        let all: f64 = points.iter().map(|(_, x)| (x - mean).powi(2)).sum();
        Ok(Self { r_squared: if all > 0.0 { 1.0 - left / all } else { 0.0 }, ..law })
    }

    /// Throughput per second at a concurrency.
    #[must_use]
    pub fn at(&self, concurrency: f64) -> f64 {
        let more = concurrency - 1.0;
        self.alone * concurrency / (1.0 + self.contention * more + self.coherency * concurrency * more)
    }

    /// The concurrency beyond which throughput falls, `√((1 − σ) / κ)`; none if it never does.
    #[must_use]
    pub fn peak(&self) -> Option<f64> {
        (self.coherency > 0.0 && self.contention < 1.0)
            .then(|| ((1.0 - self.contention) / self.coherency).sqrt())
            .filter(|peak| peak.is_finite())
    }
}

impl fmt::Display for Usl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (alone, contention, coherency) = (self.alone, self.contention, self.coherency);
        write!(f, "scales like {alone:.1}/s alone, contention {contention:.4}, coherency {coherency:.6}")?;
        if let Some(peak) = self.peak() {
            write!(f, ", most at {peak:.0} at once")?;
        }
        write!(f, " (R² {:.3})", self.r_squared)
    }
}

/// `N/X = a + b(N − 1) + cN(N − 1)`, weighted by `(X/N)²`; the first so many terms, the others 0.
fn least_squares(points: &[(f64, f64)], terms: usize) -> Option<[f64; 3]> {
    let mut normal = [[0.0; 4]; 3];
    for (n, x) in points {
        let weight = x / n;
        let row = [1.0, n - 1.0, n * (n - 1.0)].map(|term| term * weight);
        for i in 0..terms {
            (0..terms).for_each(|j| normal[i][j] += row[i] * row[j]);
            normal[i][3] += row[i];
        }
    }
    // Gauss–Jordan with pivots; three unknowns at most.
    for i in 0..terms {
        let pivot = (i..terms).max_by(|a, b| normal[*a][i].abs().total_cmp(&normal[*b][i].abs()))?;
        normal.swap(i, pivot);
        let head = normal[i][i];
        if head.abs() < 1e-12 {
            return None;
        }
        normal[i].iter_mut().for_each(|cell| *cell /= head);
        let row = normal[i];
        for other in (0..terms).filter(|other| *other != i) {
            let factor = normal[other][i];
            normal[other].iter_mut().zip(row).for_each(|(cell, own)| *cell -= factor * own);
        }
    }
    let solution = |term: usize| if term < terms { normal[term][3] + 0.0 } else { 0.0 }; // `+ 0.0` makes −0 a plain zero
    Some([solution(0), solution(1), solution(2)])
}

/// The rate of the most power, which is goodput divided by latency: before it more load buys work, beyond it waiting
/// (Kleinrock, *Power and Deterministic Rules of Thumb for Probabilistic Problems in Computer Communications*, ICC 1979).
/// Points are `(rate, goodput per second, latency in seconds)`; none without a usable one.
#[must_use]
pub fn knee(points: &[(f64, f64, f64)]) -> Option<f64> {
    let usable = points.iter().filter(|(_, goodput, latency)| goodput.is_finite() && *latency > 0.0);
    usable.max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2))).map(|(rate, ..)| *rate)
}
