//! A deterministic text embedder: words, letter trigrams and word pairs hashed into a small signed vector.
//!
//! The same text gives the same vector in every process and on every machine, which a learned model does not promise.

use std::fmt::Write as _;

/// Number of components of an embedding; the column type `vector(64)` says the same.
pub const DIMENSIONS: usize = 64;

/// A vector of length 1 (or all zeros for a text without any word).
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding([f32; DIMENSIONS]);

/// Words that carry little meaning; they count little and form no pairs.
const STOP_WORDS: [&str; 48] = [
    "a", "an", "the", "of", "to", "in", "on", "for", "with", "and", "or", "is", "are", "was", "we", "my", "me", "i",
    "you", "your", "this", "that", "it", "from", "by", "what", "which", "who", "how", "did", "do", "does", "at",
    "please", "can", "could", "now", "tell", "need", "as", "be", "our", "us", "there", "its", "will", "would",
    "should",
];

impl Embedding {
    /// Embeds a text; letter case and punctuation make no difference.
    pub fn of(text: &str) -> Self {
        let words: Vec<String> = text
            .split_whitespace()
            .map(|word| word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>())
            .filter(|word| !word.is_empty())
            .collect();
        let mut sum = [0.0_f32; DIMENSIONS];
        let mut add = |feature: &str, weight: f32| {
            let hash = hash(feature);
            sum[(hash % DIMENSIONS as u64) as usize] += if hash >> 63 == 0 { weight } else { -weight };
        };
        let mut before: Option<&str> = None;
        for word in &words {
            let weight = if STOP_WORDS.contains(&word.as_str()) { 0.15 } else { 1.0 };
            add(&format!("w:{word}"), weight);
            let letters: Vec<char> = format!("^{word}$").chars().collect();
            let trigrams = letters.windows(3).len() as f32;
            for trigram in letters.windows(3) {
                add(&format!("t:{}", trigram.iter().collect::<String>()), 0.9 * weight / trigrams.sqrt());
            }
            if weight == 1.0 {
                if let Some(before) = before {
                    add(&format!("b:{before} {word}"), 0.5);
                }
                before = Some(word);
            }
        }
        Self::normalised(sum)
    }

    /// Takes components from a caller; refuses another dimension, a component that is not finite, or all zeros.
    pub fn from_components(components: &[f32]) -> Result<Self, String> {
        let given: [f32; DIMENSIONS] = components
            .try_into()
            .map_err(|_| format!("an embedding has {DIMENSIONS} components, {} were given", components.len()))?;
        if given.iter().any(|c| !c.is_finite()) || given.iter().all(|c| *c == 0.0) {
            return Err("an embedding needs finite components that are not all zero".to_owned());
        }
        Ok(Self::normalised(given))
    }

    fn normalised(mut components: [f32; DIMENSIONS]) -> Self {
        let length = components.iter().map(|c| f64::from(*c).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            components.iter_mut().for_each(|c| *c = (f64::from(*c) / length) as f32);
        }
        Self(components)
    }

    /// Cosine distance, 0 for the same direction to 2 for the opposite one; the reference for what the index answers.
    pub fn distance(&self, other: &Self) -> f64 {
        1.0 - self.0.iter().zip(&other.0).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    }

    /// The components.
    pub fn components(&self) -> &[f32] {
        &self.0
    }

    /// The text form of pgvector: `[0.1,-0.2,...]`.
    pub fn to_sql(&self) -> String {
        let mut text = String::with_capacity(DIMENSIONS * 10);
        for (index, component) in self.0.iter().enumerate() {
            let _ = write!(text, "{}{component}", if index == 0 { '[' } else { ',' });
        }
        text.push(']');
        text
    }
}

/// FNV-1a followed by a mixing step, since FNV alone leaves the low bits of short words alike.
pub(crate) fn hash(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_text_gives_the_same_unit_vector() {
        let (a, b) = (Embedding::of("Restart the web service!"), Embedding::of("restart  the web service"));
        assert_eq!(a, b);
        let length: f64 = a.components().iter().map(|c| f64::from(*c).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }

    #[test]
    fn related_texts_are_nearer_than_unrelated_ones() {
        let query = Embedding::of("please restart the web service");
        let near = query.distance(&Embedding::of("restart the web service now"));
        let far = query.distance(&Embedding::of("write a poem about the autumn sea"));
        assert!(near < 0.2 && far > 0.6, "near {near}, far {far}");
    }

    #[test]
    fn hash_never_changes_between_builds() {
        assert_eq!(hash("w:disk"), hash("w:disk"));
        assert_eq!(hash(""), 0x8570_e250_fe4c_2473_u64, "stored embeddings depend on this value");
    }

    #[test]
    fn foreign_components_are_checked() {
        assert!(Embedding::from_components(&[1.0; 3]).unwrap_err().contains("64 components, 3 were given"));
        assert!(Embedding::from_components(&[0.0; DIMENSIONS]).is_err());
        assert!(Embedding::from_components(&[f32::NAN; DIMENSIONS]).is_err());
        assert!(Embedding::from_components(&[2.0; DIMENSIONS]).is_ok());
    }

    #[test]
    fn empty_text_is_the_zero_vector() {
        assert!(Embedding::of(" !? ").components().iter().all(|c| *c == 0.0));
    }
}
