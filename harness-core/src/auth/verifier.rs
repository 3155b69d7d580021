//! The reference verifier: what a correct service does, a rule at a time, and any one rule left out.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::attack::{REVOKED, Rule};
use super::claims::TokenRequest;
use super::issuer::{Algorithm, Issuer, Key, pem};

/// Why a token was refused: the rule it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refusal(pub Rule);

impl Refusal {
    /// The status that says so: 403 for a good token of another project, else 401.
    #[must_use]
    pub fn status(self) -> u16 {
        if self.0 == Rule::Project { 403 } else { 401 }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: the rule {:?} is broken", self.0)
    }
}

impl std::error::Error for Refusal {}

/// A correct verifier, for stand-ins of services, and for showing that a rule is worth its line: [`Verifier::without`]
/// leaves one out, and then exactly the tokens of that rule pass.
#[derive(Clone, Debug)]
#[must_use]
pub struct Verifier {
    issuer: Issuer,
    left_out: Option<Rule>,
    revoked: BTreeSet<String>,
}

impl Verifier {
    /// A verifier that trusts this issuer, and knows the token of the attacks that was taken back.
    pub fn of(issuer: &Issuer) -> Self {
        Self { issuer: issuer.clone(), left_out: None, revoked: BTreeSet::from([REVOKED.to_owned()]) }
    }

    /// The same without one rule.
    pub fn without(mut self, rule: Rule) -> Self {
        self.left_out = Some(rule);
        self
    }

    /// Takes a token back by its id.
    pub fn revoke(&mut self, jti: impl Into<String>) {
        self.revoked.insert(jti.into());
    }

    /// The claims of a request's token, if the token is good for the project.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn verify_request(&self, request: &TokenRequest, project: &str) -> Result<Value, Refusal> {
        let strict = self.checks(Rule::Carrier);
        let token = match &request.authorization[..] {
            [one] => bearer(one, strict),
            [first, ..] if !strict => bearer(first, false),
            [] if !strict => Some(request.query.strip_prefix("access_token=").unwrap_or_default().to_owned()),
            _ => None,
        };
        match token {
            // Without a token only a service that does not care lets anybody in.
            Some(token) if token.is_empty() && !strict => Ok(Value::Null),
            Some(token) => self.verify(&token, project),
            None => Err(Refusal(Rule::Carrier)),
        }
    }

    /// The claims of a token, if it is good for the project.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn verify(&self, token: &str, project: &str) -> Result<Value, Refusal> {
        let parts: Vec<&str> = token.split('.').collect();
        let (head, body, made) = match &parts[..] {
            [head, body, made] => (*head, *body, *made),
            [head, body, made, ..] if !self.checks(Rule::Parts) => (*head, *body, *made),
            _ => return Err(Refusal(Rule::Parts)),
        };
        let header = self.read(head)?;
        let claims = self.read(body)?;
        let made = self.decode(made)?;
        self.check_header(&header)?;
        let signed = if self.checks(Rule::Encoding) {
            format!("{head}.{body}")
        } else {
            // Whoever tidies a token up verifies what was tidied up.
            format!("{}.{}", tidy(head), tidy(body))
        };
        self.check_signature(&header, signed.as_bytes(), &made)?;
        self.check_times(&claims)?;
        self.check_names(&claims, project)?;
        Ok(Value::Object(claims))
    }

    fn checks(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }

    fn demand(&self, rule: Rule, holds: bool) -> Result<(), Refusal> {
        if holds || !self.checks(rule) { Ok(()) } else { Err(Refusal(rule)) }
    }

    fn decode(&self, part: &str) -> Result<Vec<u8>, Refusal> {
        if self.checks(Rule::Encoding) {
            return URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal(Rule::Encoding));
        }
        let config = GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let lenient = GeneralPurpose::new(&alphabet::URL_SAFE, config);
        lenient.decode(tidy(part)).map_err(|_| Refusal(Rule::Encoding))
    }

    fn read(&self, part: &str) -> Result<Map<String, Value>, Refusal> {
        let bytes = self.decode(part)?;
        if self.checks(Rule::Doubles) {
            return serde_json::from_slice::<Once>(&bytes).map(|once| once.0).map_err(|_| Refusal(Rule::Doubles));
        }
        serde_json::from_slice(&bytes).map_err(|_| Refusal(Rule::Encoding))
    }

    fn check_header(&self, header: &Map<String, Value>) -> Result<(), Refusal> {
        self.demand(Rule::Critical, !header.contains_key("crit"))?;
        let kind = header.get("typ").map(|kind| kind.as_str().unwrap_or_default().to_ascii_lowercase());
        self.demand(Rule::Type, kind.is_none_or(|kind| kind == "jwt" || kind == "at+jwt"))?;
        let kid = header.get("kid").and_then(Value::as_str);
        self.demand(Rule::KeyId, kid.is_none_or(plain_name))?;
        let foreign = ["jwk", "jku", "x5u", "x5c"].iter().any(|name| header.contains_key(*name));
        self.demand(Rule::OwnKey, !foreign)
    }

    fn check_signature(&self, header: &Map<String, Value>, signed: &[u8], made: &[u8]) -> Result<(), Refusal> {
        let issuer = &self.issuer;
        let alg = header.get("alg").and_then(Value::as_str).unwrap_or_default();
        if alg.eq_ignore_ascii_case("none") {
            return self.demand(Rule::Signed, false);
        }
        // Without these rules the attacker chooses the key.
        let foreign = ["jwk", "jku", "x5u", "x5c"].iter().any(|name| header.contains_key(*name));
        if foreign && !self.checks(Rule::OwnKey) && issuer.stranger.fits(signed, made) {
            return Ok(());
        }
        let kid = header.get("kid").and_then(Value::as_str).unwrap_or_default();
        if !plain_name(kid) && !self.checks(Rule::KeyId) {
            let secret: &[u8] = if kid.contains("/dev/null") { b"" } else { b"k" };
            if Key::Hmac(secret.to_vec()).fits(signed, made) {
                return Ok(());
            }
        }
        if alg != issuer.algorithm().name() {
            self.demand(Rule::Algorithm, false)?;
            return match self.confused(signed, made) {
                true => Ok(()),
                false => Err(Refusal(Rule::Signature)),
            };
        }
        self.demand(Rule::Signature, issuer.key.fits(signed, made))
    }

    /// Whether the key, taken for one of another algorithm, made the signature.
    fn confused(&self, signed: &[u8], made: &[u8]) -> bool {
        let key = &self.issuer.key;
        if self.issuer.algorithm() == Algorithm::Hs256 {
            return key.fits(signed, made);
        }
        let der = key.public_der();
        let text = pem(&der);
        let forms = [
            text.clone().into_bytes(),
            text.trim_end().as_bytes().to_vec(),
            text.replace('\n', "\r\n").into_bytes(),
            der.clone(),
            STANDARD.encode(&der).into_bytes(),
        ];
        forms.into_iter().any(|secret| Key::Hmac(secret).fits(signed, made))
    }

    fn check_times(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        const LATEST: f64 = 1e15;
        let (now, leeway) = (self.issuer.clock.now() as f64, self.issuer.leeway as f64);
        let number = |name: &str| claims.get(name).and_then(Value::as_f64).filter(|number| *number < LATEST);
        let end = number("exp");
        self.demand(Rule::HasEnd, end.is_some())?;
        self.demand(Rule::End, end.is_none_or(|end| now < end + leeway))?;
        let begun = |name: &str| !claims.contains_key(name) || number(name).is_some_and(|from| from <= now + leeway);
        self.demand(Rule::Beginning, begun("nbf"))?;
        self.demand(Rule::Issued, begun("iat"))
    }

    fn check_names(&self, claims: &Map<String, Value>, project: &str) -> Result<(), Refusal> {
        let issuer = &self.issuer;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        self.demand(Rule::Issuer, text("iss") == Some(&*issuer.name))?;
        let meant = match claims.get("aud") {
            Some(Value::String(one)) => *one == issuer.audience,
            Some(Value::Array(many)) => many.iter().any(|one| *one == *issuer.audience),
            _ => false,
        };
        self.demand(Rule::Audience, meant)?;
        self.demand(Rule::Subject, text("sub").is_some_and(|subject| !subject.is_empty()))?;
        self.demand(Rule::Revoked, !text("jti").is_some_and(|jti| self.revoked.contains(jti)))?;
        self.demand(Rule::Project, text(&issuer.project_claim) == Some(project))
    }
}

/// The token of a header, `Bearer <token>`.
fn bearer(value: &str, strict: bool) -> Option<String> {
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token,
        _ if strict => return None,
        Some((_, token)) => token,
        None => value,
    };
    let listed = token.split_once(',');
    match listed {
        Some(_) if strict => None,
        Some((first, _)) => Some(first.to_owned()),
        None => Some(token.to_owned()),
    }
}

fn plain_name(kid: &str) -> bool {
    kid.len() <= 256 && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// A part with everything taken out that base64url does not know.
fn tidy(part: &str) -> String {
    part.chars().filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')).collect()
}

/// An object in which no member stands twice.
struct Once(Map<String, Value>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object in which no member stands twice")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Once, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = from.next_entry::<String, Value>()? {
                    if members.insert(name.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("the member {name} stands twice")));
                    }
                }
                Ok(Once(members))
            }
        }
        from.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Algorithm, Clock, Issuer, Rule, attacks, valid_variants};
    use super::Verifier;

    const PROJECT: &str = "project-a";

    fn issuers() -> Vec<Issuer> {
        let issuer = |algorithm, leeway| {
            Issuer::new(algorithm, "https://issuer.test", "orders").clock(Clock::fixed(1_800_000_000)).leeway(leeway)
        };
        Algorithm::ALL.into_iter().flat_map(|algorithm| [issuer(algorithm, 0), issuer(algorithm, 30)]).collect()
    }

    #[test]
    fn every_attack_is_refused_by_the_rule_it_breaks() {
        for issuer in issuers() {
            let verifier = Verifier::of(&issuer);
            let attacks = attacks(&issuer, "http://127.0.0.1:9/trap");
            assert!(attacks.len() >= 45, "{} attacks on {:?}", attacks.len(), issuer.algorithm());
            let names: BTreeSet<_> = attacks.iter().map(|attack| &attack.name).collect();
            assert_eq!(names.len(), attacks.len(), "a name stands for one attack");
            for attack in &attacks {
                let refusal = verifier.verify_request(&attack.request, PROJECT).unwrap_err();
                assert_eq!(refusal.0, attack.rule, "{:?}: {}", issuer.algorithm(), attack.name);
                assert_eq!(refusal.status(), attack.status);
            }
        }
    }

    #[test]
    fn good_tokens_are_never_refused() {
        for issuer in issuers() {
            let verifier = Verifier::of(&issuer);
            let valid = valid_variants(&issuer);
            assert!(valid.len() >= 20, "{}", valid.len());
            for variant in valid {
                let verified = verifier.verify_request(&variant.request, PROJECT);
                assert!(verified.is_ok(), "{:?}: {}: {verified:?}", issuer.algorithm(), variant.name);
            }
        }
    }

    #[test]
    fn verifier_without_a_rule_lets_exactly_the_tokens_of_that_rule_pass() {
        for issuer in issuers() {
            for rule in Rule::ALL {
                let careless = Verifier::of(&issuer).without(rule);
                for attack in attacks(&issuer, "http://127.0.0.1:9/trap") {
                    let passes = careless.verify_request(&attack.request, PROJECT).is_ok();
                    assert_eq!(
                        passes,
                        attack.rule == rule,
                        "{:?} without {rule:?}: {}",
                        issuer.algorithm(),
                        attack.name
                    );
                }
            }
        }
    }

    #[test]
    fn a_clock_that_moves_ends_a_token_to_the_second() {
        let clock = Clock::fixed(1_800_000_000);
        let issuer = Issuer::new(Algorithm::Hs256, "i", "a").clock(clock.clone()).lifetime(60).leeway(5);
        let (token, verifier) = (issuer.token("s", "p"), Verifier::of(&issuer));
        for (seconds, good) in [(0, true), (59, true), (5, true), (1, false)] {
            clock.advance(seconds);
            assert_eq!(verifier.verify(&token, "p").is_ok(), good, "after {seconds} s more");
        }
    }

    #[test]
    fn public_keys_verify_outside_of_this_room() {
        use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
        let issuer = Issuer::new(Algorithm::Rs256, "i", "a");
        assert!(issuer.public_pem().starts_with("-----BEGIN PUBLIC KEY-----\nMII"), "{}", issuer.public_pem());
        let der = issuer.key.public_der();
        // The key inside the wrapping is the one that verifies (24 bytes of wrapping for 2048 bits).
        let token = issuer.token("s", "p");
        let (signed, made) = token.rsplit_once('.').unwrap();
        let made = base64::Engine::decode(&super::URL_SAFE_NO_PAD, made).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &der[24..]).verify(signed.as_bytes(), &made).unwrap();
        assert!(Issuer::new(Algorithm::Hs256, "i", "a").public_pem().is_empty());
        assert_eq!(issuer.key_set()["keys"][0]["kty"], "RSA");
    }
}
