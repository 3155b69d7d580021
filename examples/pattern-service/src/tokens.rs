//! Tokens of the secure profile that end: issued to an agent, valid until they expire or are revoked.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

type Hash = [u8; 32];

/// The plant `remembers-tokens` accepts a token for so long without looking it up again.
const REMEMBERED: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Issued {
    id: String,
    until: Instant,
}

/// The tokens that are valid, by digest: the tokens themselves are not kept.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    valid: Mutex<HashMap<Hash, Issued>>,
    remembered: Mutex<HashMap<Hash, Instant>>,
}

/// A token as its holder gets it.
#[derive(Debug)]
pub(crate) struct Token {
    /// By which it is revoked.
    pub(crate) id: String,
    /// What its holder shows.
    pub(crate) secret: String,
}

impl Tokens {
    /// A new token that is valid for so long.
    pub(crate) fn issue(&self, valid_for: Duration) -> io::Result<Token> {
        let (mut bytes, now) = ([0_u8; 32], Instant::now());
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = crate::app::unique_id();
        let mut valid = lock(&self.valid);
        valid.retain(|_, issued| issued.until > now);
        valid.insert(hash(secret.as_bytes()), Issued { id: id.clone(), until: now + valid_for });
        Ok(Token { id, secret })
    }

    /// Ends a token; false when there is none of this id, or not any more. Once this has returned nobody is let in by it.
    pub(crate) fn revoke(&self, id: &str) -> bool {
        let mut valid = lock(&self.valid);
        let before = valid.len();
        valid.retain(|_, issued| issued.id != id);
        valid.len() < before
    }

    /// Whether a token is valid at this moment.
    pub(crate) fn is_valid(&self, secret: &[u8], now: Instant, remembers: bool) -> bool {
        let hash = hash(secret);
        if remembers && lock(&self.remembered).get(&hash).is_some_and(|until| *until > now) {
            return true;
        }
        let is_valid = lock(&self.valid).get(&hash).is_some_and(|issued| issued.until > now);
        if remembers && is_valid {
            lock(&self.remembered).insert(hash, now + REMEMBERED);
        }
        is_valid
    }
}

fn hash(secret: &[u8]) -> Hash {
    Sha256::digest(secret).into()
}

/// What is guarded is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_valid_until_it_expires_or_is_revoked() {
        let tokens = Tokens::default();
        let (one, two) =
            (tokens.issue(Duration::from_secs(60)).unwrap(), tokens.issue(Duration::from_secs(60)).unwrap());
        let valid = |token: &Token, later: u64| {
            tokens.is_valid(token.secret.as_bytes(), Instant::now() + Duration::from_secs(later), false)
        };
        assert!(one.secret != two.secret && valid(&one, 0) && valid(&two, 59) && !valid(&two, 60));
        assert!(tokens.revoke(&one.id) && !tokens.revoke(&one.id), "one revocation counts");
        assert!(!valid(&one, 0) && valid(&two, 0));
        assert!(!tokens.is_valid(one.id.as_bytes(), Instant::now(), false), "the id lets nobody in");
    }

    #[test]
    fn planted_memory_outlives_a_revocation() {
        let tokens = Tokens::default();
        let token = tokens.issue(Duration::from_secs(60)).unwrap();
        let valid = |remembers| tokens.is_valid(token.secret.as_bytes(), Instant::now(), remembers);
        assert!(valid(true) && tokens.revoke(&token.id));
        assert!(valid(true) && !valid(false));
    }
}
