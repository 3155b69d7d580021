//! Fewer points, same shape: spikes survive.

/// Reduces `points` (in rising x) to at most `max`, keeping the first, the last and each bucket's lowest and highest.
///
/// Values are rounded to six significant digits, so that JSON carries them without loss.
pub(super) fn downsample(points: &mut Vec<(f64, f64)>, max: usize) {
    if points.len() > max && max >= 4 {
        let inner = &points[1..points.len() - 1];
        let buckets = (max - 2) / 2;
        let mut kept = vec![points[0]];
        for bucket in 0..buckets {
            let (from, to) = (bucket * inner.len() / buckets, (bucket + 1) * inner.len() / buckets);
            let slice = &inner[from..to];
            let low = (0..slice.len()).min_by(|a, b| slice[*a].1.total_cmp(&slice[*b].1));
            let high = (0..slice.len()).max_by(|a, b| slice[*a].1.total_cmp(&slice[*b].1));
            if let (Some(low), Some(high)) = (low, high) {
                kept.push(slice[low.min(high)]);
                if low != high {
                    kept.push(slice[low.max(high)]);
                }
            }
        }
        kept.push(points[points.len() - 1]);
        *points = kept;
    }
    for (x, y) in points {
        (*x, *y) = (significant(*x), significant(*y));
    }
}

fn significant(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    format!("{value:.5e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::downsample;

    #[test]
    fn keeps_ends_and_a_single_spike() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|n| (f64::from(n), 1.0)).collect();
        points[4321].1 = 900.0;
        points[7000].1 = -3.0;
        downsample(&mut points, 300);
        assert!(points.len() <= 300 && points.is_sorted_by(|a, b| a.0 < b.0), "{}", points.len());
        assert_eq!((points[0].0, points[points.len() - 1].0), (0.0, 9999.0));
        assert!(points.contains(&(4321.0, 900.0)) && points.contains(&(7000.0, -3.0)));
    }

    #[test]
    fn leaves_short_series_alone() {
        let mut points = vec![(0.0, 1.0), (1.0, 0.1 + 0.2)];
        downsample(&mut points, 300);
        assert_eq!(points, [(0.0, 1.0), (1.0, 0.3)]);
    }
}
