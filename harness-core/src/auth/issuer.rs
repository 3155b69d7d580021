//! Who signs: keys of three algorithms, and tokens put together by hand, since a library refuses to make a bad one.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, UnparsedPublicKey,
};
use ring::{hmac, rand::SecureRandom as _};
use serde_json::{Value, json};

use super::claims::Clock;

/// A published test key, PKCS #8: it signs for nobody else.
const ISSUER_RSA: &[u8] = include_bytes!("issuer.pkcs8");
/// The key of a stranger, likewise.
const STRANGER_RSA: &[u8] = include_bytes!("stranger.pkcs8");
/// The secret of HS256 unless told.
const SECRET: &[u8] = b"a test secret of more than thirty-two bytes";

/// How tokens are signed (RFC 7518, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256: issuer and service share a secret.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hs256, Self::Rs256, Self::Es256];

    /// As it stands in a header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// A key that signs.
#[derive(Clone)]
pub(super) enum Key {
    Hmac(Vec<u8>),
    Rsa(Arc<RsaKeyPair>),
    Ecdsa(Arc<EcdsaKeyPair>),
    /// Not a key at all: the signature is empty.
    None,
}

impl Key {
    fn new(algorithm: Algorithm, rsa: &[u8], secret: &[u8]) -> Self {
        match algorithm {
            Algorithm::Hs256 => Self::Hmac(secret.to_vec()),
            // A key that ring cannot read would be caught by every test of this room; the signature is then empty.
            Algorithm::Rs256 => RsaKeyPair::from_pkcs8(rsa).map_or(Self::None, |pair| Self::Rsa(Arc::new(pair))),
            Algorithm::Es256 => {
                let random = SystemRandom::new();
                let made =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).ok().and_then(|made| {
                        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).ok()
                    });
                made.map_or(Self::None, |pair| Self::Ecdsa(Arc::new(pair)))
            }
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Hmac(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut out = vec![0; pair.public().modulus_len()];
                match pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut out) {
                    Ok(()) => out,
                    Err(_) => Vec::new(),
                }
            }
            Self::Ecdsa(pair) => pair.sign(&random, message).map(|made| made.as_ref().to_vec()).unwrap_or_default(),
            Self::None => Vec::new(),
        }
    }

    /// Whether this key made the signature.
    pub(super) fn fits(&self, message: &[u8], made: &[u8]) -> bool {
        match self {
            Self::Hmac(secret) => hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, made).is_ok(),
            Self::Rsa(pair) => {
                let public = UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
                public.verify(message, made).is_ok()
            }
            Self::Ecdsa(pair) => {
                let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
                public.verify(message, made).is_ok()
            }
            Self::None => false,
        }
    }

    /// The public key as SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7), DER; of a secret nothing.
    pub(super) fn public_der(&self) -> Vec<u8> {
        const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
        const P256: &[u8] = &[
            0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
            0x03, 0x01, 0x07,
        ];
        let wrapped = |algorithm: &[u8], key: &[u8]| {
            let bits = der(0x03, &[&[0], key].concat());
            der(0x30, &[algorithm, &bits].concat())
        };
        match self {
            Self::Rsa(pair) => wrapped(RSA, pair.public_key().as_ref()),
            Self::Ecdsa(pair) => wrapped(P256, pair.public_key().as_ref()),
            Self::Hmac(_) | Self::None => Vec::new(),
        }
    }

    /// The public key as JSON Web Key (RFC 7517).
    pub(super) fn public_jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let parts = signature::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": text(&parts.n), "e": text(&parts.e)})
            }
            Self::Ecdsa(pair) => {
                // An uncompressed point: 4, then x and y of 32 bytes each.
                let point = pair.public_key().as_ref();
                let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..65).unwrap_or_default());
                json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": text(x), "y": text(y)})
            }
            Self::Hmac(secret) => json!({"kty": "oct", "alg": "HS256", "use": "sig", "kid": kid, "k": text(secret)}),
            Self::None => Value::Null,
        }
    }
}

/// A value in DER: tag, length, content (X.690, section 8.1).
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..=127 => out.push(length as u8),
        length => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend(content);
    out
}

pub(super) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

/// Who makes the tokens that a service accepts.
#[derive(Clone)]
#[must_use]
pub struct Issuer {
    algorithm: Algorithm,
    pub(super) key: Key,
    pub(super) stranger: Key,
    pub(super) kid: String,
    pub(super) name: String,
    pub(super) audience: String,
    pub(super) clock: Clock,
    pub(super) lifetime: u64,
    pub(super) leeway: u64,
    pub(super) project_claim: String,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("algorithm", &self.algorithm)
            .field("name", &self.name)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// An issuer with keys for tests: the claim `iss` is `name`, `aud` is `audience`, tokens live 60 s.
    pub fn new(algorithm: Algorithm, name: impl Into<String>, audience: impl Into<String>) -> Self {
        let mut other = [0; 48];
        // Without randomness the stranger's secret is still another one.
        let _ = SystemRandom::new().fill(&mut other);
        Self {
            algorithm,
            key: Key::new(algorithm, ISSUER_RSA, SECRET),
            stranger: Key::new(algorithm, STRANGER_RSA, &other),
            kid: "test-key-1".to_owned(),
            name: name.into(),
            audience: audience.into(),
            clock: Clock::system(),
            lifetime: 60,
            leeway: 0,
            project_claim: "project".to_owned(),
        }
    }

    /// Signs with this secret (HS256 only).
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        if self.algorithm == Algorithm::Hs256 {
            self.key = Key::Hmac(secret.into());
        }
        self
    }

    /// Tells time by this clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Tokens live so many seconds.
    pub fn lifetime(mut self, seconds: u64) -> Self {
        self.lifetime = seconds;
        self
    }

    /// The service forgives clocks that are so many seconds apart; 0 unless told. Hostile tokens stay beyond it.
    pub fn leeway(mut self, seconds: u64) -> Self {
        self.leeway = seconds;
        self
    }

    /// The claim that names the project; `project` unless told.
    pub fn project_claim(mut self, name: impl Into<String>) -> Self {
        self.project_claim = name.into();
        self
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key as PEM, for the configuration of a service; empty for HS256.
    #[must_use]
    pub fn public_pem(&self) -> String {
        let der = self.key.public_der();
        if der.is_empty() { String::new() } else { pem(&der) }
    }

    /// The set of public keys (RFC 7517, section 5), for a service that fetches it; it holds the secret for HS256.
    #[must_use]
    pub fn key_set(&self) -> Value {
        json!({"keys": [self.key.public_jwk(&self.kid)]})
    }

    /// The secret of HS256, for the configuration of a service; empty otherwise.
    #[must_use]
    pub fn shared_secret(&self) -> Vec<u8> {
        match &self.key {
            Key::Hmac(secret) => secret.clone(),
            _ => Vec::new(),
        }
    }

    /// A good token for somebody in a project.
    #[must_use]
    pub fn token(&self, subject: &str, project: &str) -> String {
        self.sign(&self.header(), &self.claims(subject, project))
    }

    /// A token of these claims, whatever they are, with the usual header.
    #[must_use]
    pub fn token_of(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }

    /// The claims of a good token.
    #[must_use]
    pub fn claims(&self, subject: &str, project: &str) -> Value {
        let now = self.clock.now();
        let mut claims = json!({
            "iss": self.name, "aud": self.audience, "sub": subject,
            "iat": now, "nbf": now, "exp": now + self.lifetime,
            "jti": format!("jti-{subject}-{now}"),
        });
        claims[&self.project_claim] = json!(project);
        claims
    }

    pub(super) fn header(&self) -> Value {
        json!({"alg": self.algorithm.name(), "typ": "JWT", "kid": self.kid})
    }

    pub(super) fn sign(&self, header: &Value, claims: &Value) -> String {
        compact(header.to_string().as_bytes(), claims.to_string().as_bytes(), &self.key)
    }
}

/// The compact form (RFC 7515, section 7.1).
pub(super) fn compact(header: &[u8], payload: &[u8], key: &Key) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let made = key.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(made))
}
