//! Products of two 128-bit numbers, compared without loss.

use std::cmp::Ordering;

/// Compares `a * b` with `c * d` exactly.
pub(super) fn compare_products(a: u128, b: u128, c: u128, d: u128) -> Ordering {
    product(a, b).cmp(&product(c, d))
}

/// The 256-bit product as (high, low).
fn product(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a_high, a_low, b_high, b_low) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let (low, cross, other) = (a_low * b_low, a_high * b_low, a_low * b_high);
    let middle = (low >> 64) + (cross & LOW) + (other & LOW);
    let high = a_high * b_high + (cross >> 64) + (other >> 64) + (middle >> 64);
    (high, (middle << 64) | (low & LOW))
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::{compare_products, product};

    #[test]
    fn multiplies_beyond_128_bits() {
        assert_eq!(product(7, 6), (0, 42));
        assert_eq!(product(u128::MAX, u128::MAX), (u128::MAX - 1, 1));
        assert_eq!(product(1 << 127, 4), (2, 0));
    }

    #[test]
    fn tells_neighbours_apart_where_floats_cannot() {
        assert_eq!(compare_products(u128::MAX, u128::MAX - 1, u128::MAX - 1, u128::MAX), Ordering::Equal);
        assert_eq!(compare_products(u128::MAX, u128::MAX - 1, u128::MAX, u128::MAX), Ordering::Less);
    }
}
