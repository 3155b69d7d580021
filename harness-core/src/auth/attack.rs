//! Hostile tokens, each breaking one rule and no other, and odd tokens that are good.
//!
//! Sources: RFC 8725 (best practices), RFC 7515 (signatures, header parameters), RFC 7519 (claims), RFC 6750 (bearer).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::claims::TokenRequest;
use super::issuer::{Algorithm, Issuer, Key, compact, pem};

/// What a verifier has to check. Each hostile token breaks exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// One token, in one `Authorization` header (RFC 6750, section 2).
    Carrier,
    /// Three parts, no more and no fewer (RFC 7515, section 7.1).
    Parts,
    /// Base64url without padding, blanks or stray bits (RFC 7515, section 2).
    Encoding,
    /// A signature is demanded: `none` is no algorithm (RFC 8725, section 3.2).
    Signed,
    /// The algorithm is the one of the key (RFC 8725, section 3.1).
    Algorithm,
    /// The signature is right (RFC 7515, section 5.2).
    Signature,
    /// No key comes with the token or from an address in it (RFC 8725, section 3.10).
    OwnKey,
    /// A key id is a name and no path, no query, no program (RFC 8725, section 3.10).
    KeyId,
    /// Extensions that are critical and unknown refuse the token (RFC 7515, section 4.1.11).
    Critical,
    /// No member stands twice (RFC 7519, section 4).
    Doubles,
    /// The type is one of an access token (RFC 8725, section 3.11; RFC 9068, section 2.1).
    Type,
    /// The token has an end, which is a number (RFC 7519, section 4.1.4).
    HasEnd,
    /// The end has not come (RFC 7519, section 4.1.4).
    End,
    /// The beginning has come (RFC 7519, section 4.1.5).
    Beginning,
    /// It was not issued in the future (RFC 7519, section 4.1.6).
    Issued,
    /// The issuer is the right one, letter by letter (RFC 8725, section 3.8).
    Issuer,
    /// It is meant for this service (RFC 8725, section 3.9).
    Audience,
    /// It names somebody (RFC 8725, section 3.8).
    Subject,
    /// It is not a token that was taken back (RFC 7519, section 4.1.7).
    Revoked,
    /// It is for this project; a good token of another project is forbidden, not unknown.
    Project,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Carrier,
        Self::Parts,
        Self::Encoding,
        Self::Signed,
        Self::Algorithm,
        Self::Signature,
        Self::OwnKey,
        Self::KeyId,
        Self::Critical,
        Self::Doubles,
        Self::Type,
        Self::HasEnd,
        Self::End,
        Self::Beginning,
        Self::Issued,
        Self::Issuer,
        Self::Audience,
        Self::Subject,
        Self::Revoked,
        Self::Project,
    ];
}

/// A hostile token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attack {
    /// What it does, in a few words.
    pub name: String,
    /// The one rule it breaks.
    pub rule: Rule,
    /// How it is shown.
    pub request: TokenRequest,
    /// The status that refuses it: 401, or 403 for a good token of another project.
    pub status: u16,
}

/// A token that is good, though it looks odd.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Valid {
    /// What is odd about it.
    pub name: &'static str,
    /// How it is shown.
    pub request: TokenRequest,
}

/// The id of the token that was taken back.
pub(super) const REVOKED: &str = "jti-revoked";
const SUBJECT: &str = "agent-1";
const PROJECT: &str = "project-a";

struct Book<'a> {
    issuer: &'a Issuer,
    list: Vec<Attack>,
}

impl Book<'_> {
    fn shown(&mut self, rule: Rule, name: impl Into<String>, request: TokenRequest) {
        let status = if rule == Rule::Project { 403 } else { 401 };
        self.list.push(Attack { name: name.into(), rule, request, status });
    }

    fn token(&mut self, rule: Rule, name: impl Into<String>, token: &str) {
        self.shown(rule, name, TokenRequest::bearer(token));
    }

    fn good(&self) -> String {
        self.issuer.token(SUBJECT, PROJECT)
    }

    /// A token with claims changed; `Value::Null` takes one away.
    fn claims(&mut self, rule: Rule, name: impl Into<String>, changes: &[(&str, Value)]) {
        let mut claims = self.issuer.claims(SUBJECT, PROJECT);
        change(&mut claims, changes);
        let token = self.issuer.token_of(&claims);
        self.token(rule, name, &token);
    }

    /// A token with its header changed, signed with a key.
    fn header(&mut self, rule: Rule, name: impl Into<String>, changes: &[(&str, Value)], key: &Key) {
        let mut header = self.issuer.header();
        change(&mut header, changes);
        let payload = self.issuer.claims(SUBJECT, PROJECT).to_string();
        let token = compact(header.to_string().as_bytes(), payload.as_bytes(), key);
        self.token(rule, name, &token);
    }
}

fn change(object: &mut Value, changes: &[(&str, Value)]) {
    let Some(members) = object.as_object_mut() else { return };
    for (name, value) in changes {
        if value.is_null() {
            members.remove(*name);
        } else {
            members.insert((*name).to_owned(), value.clone());
        }
    }
}

/// Hostile tokens for a service that trusts this issuer and guards `project-a`; `trap` is an address where a service that
/// fetches keys shows itself. At least 45, each breaking one rule of [`Rule`].
#[must_use]
pub fn attacks(issuer: &Issuer, trap: &str) -> Vec<Attack> {
    let mut book = Book { issuer, list: Vec::new() };
    carriers(&mut book);
    shapes(&mut book);
    signatures(&mut book);
    headers(&mut book, trap);
    times(&mut book);
    names(&mut book);
    book.list
}

fn carriers(book: &mut Book<'_>) {
    let good = book.good();
    book.shown(Rule::Carrier, "no token at all", TokenRequest::default());
    let query = TokenRequest { authorization: Vec::new(), query: format!("access_token={good}") };
    book.shown(Rule::Carrier, "token in the query", query);
    let twice =
        TokenRequest { authorization: vec![format!("Bearer {good}"), format!("Bearer {good}")], query: String::new() };
    book.shown(Rule::Carrier, "two Authorization headers", twice);
    for (name, value) in [
        ("another scheme", format!("Basic {good}")),
        ("no scheme", good.clone()),
        ("two tokens in one header", format!("Bearer {good},Bearer {good}")),
    ] {
        book.shown(Rule::Carrier, name, TokenRequest { authorization: vec![value], query: String::new() });
    }
}

fn shapes(book: &mut Book<'_>) {
    let good = book.good();
    let parts: Vec<&str> = good.split('.').collect();
    let (head, body, tail) = (parts[0], parts[1], parts[2]);
    book.token(Rule::Parts, "five parts, as an encrypted token has", &format!("{good}.{body}.{tail}"));
    book.token(Rule::Parts, "a dot behind", &format!("{good}."));
    book.token(Rule::Encoding, "padding in a part", &format!("{head}.{body}.{tail}=="));
    book.token(Rule::Encoding, "the other alphabet's letters", &format!("{head}.{body}.+{tail}"));
    book.token(Rule::Encoding, "a blank inside", &format!("{head}.{body} .{tail}"));
    book.token(Rule::Encoding, "bits left over", &with_stray_bits(&good));
}

/// The same bytes, but the unused low bits of the last letter are set (RFC 4648, section 3.5).
fn with_stray_bits(token: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = token.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut()
        && let Some(at) = ALPHABET.iter().position(|letter| letter == last)
    {
        *last = ALPHABET[at | 1];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn signatures(book: &mut Book<'_>) {
    let issuer = book.issuer;
    for spelling in ["none", "None", "NONE", "nOnE"] {
        book.header(
            Rule::Signed,
            format!("alg {spelling} without a signature"),
            &[("alg", json!(spelling))],
            &Key::None,
        );
    }
    let good = book.good();
    let parts: Vec<&str> = good.split('.').collect();
    let made = URL_SAFE_NO_PAD.decode(parts[2]).unwrap_or_default();
    let with = |made: &[u8]| format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(made));
    book.token(Rule::Signature, "signature stripped", &format!("{}.{}.", parts[0], parts[1]));
    for at in [0, made.len() / 2, made.len().saturating_sub(1)] {
        let mut flipped = made.clone();
        if let Some(byte) = flipped.get_mut(at) {
            *byte ^= 1;
        }
        book.token(Rule::Signature, format!("one bit of the signature flipped at byte {at}"), &with(&flipped));
    }
    book.token(Rule::Signature, "signature cut short", &with(&made[..made.len().saturating_sub(1)]));
    book.token(Rule::Signature, "signature of zeros", &with(&vec![0; made.len()]));
    let claims = issuer.claims("somebody-else", PROJECT).to_string();
    let edited = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims), parts[2]);
    book.token(Rule::Signature, "claims edited after signing", &edited);
    book.header(Rule::Signature, "a stranger's key under our key id", &[], &issuer.stranger);
    match issuer.algorithm() {
        Algorithm::Hs256 => {
            for secret in ["secret", "password", "changeme", "your-256-bit-secret", ""] {
                let name = format!("signed with the secret {secret:?}");
                book.header(Rule::Signature, name, &[], &Key::Hmac(secret.as_bytes().to_vec()));
            }
            book.header(Rule::Algorithm, "HS256 key, header says HS512", &[("alg", json!("HS512"))], &issuer.key);
            book.header(Rule::Algorithm, "HS256 key, header says RS256", &[("alg", json!("RS256"))], &issuer.key);
        }
        Algorithm::Rs256 | Algorithm::Es256 => {
            let der = issuer.key.public_der();
            let text = pem(&der);
            for (form, bytes) in [
                ("PEM", text.clone().into_bytes()),
                ("PEM without its last line end", text.trim_end().as_bytes().to_vec()),
                ("PEM with CRLF", text.replace('\n', "\r\n").into_bytes()),
                ("DER", der.clone()),
                ("base64 of DER", STANDARD.encode(&der).into_bytes()),
            ] {
                let name = format!("HS256 with the public key as secret ({form})");
                book.header(Rule::Algorithm, name, &[("alg", json!("HS256"))], &Key::Hmac(bytes));
            }
        }
    }
}

fn headers(book: &mut Book<'_>, trap: &str) {
    let issuer = book.issuer;
    let stranger = issuer.stranger.clone();
    for (name, member, value) in [
        ("a key in the header", "jwk", issuer.stranger.public_jwk(&issuer.kid)),
        ("an address of keys in the header", "jku", json!(trap)),
        ("an address of a certificate in the header", "x5u", json!(trap)),
        ("a certificate in the header", "x5c", json!([STANDARD.encode(issuer.stranger.public_der())])),
    ] {
        book.header(Rule::OwnKey, name, &[(member, value)], &stranger);
    }
    for (name, kid, secret) in [
        ("key id climbs to an empty file", "../../../../dev/null", &b""[..]),
        ("key id is a query", "x' UNION SELECT 'k' -- ", &b"k"[..]),
        ("key id is a command", "x|echo k", &b"k"[..]),
    ] {
        // Whoever obeys such an id has a secret of the attacker's choice, whatever its algorithm was.
        let changes = [("kid", json!(kid)), ("alg", json!("HS256"))];
        book.header(Rule::KeyId, name, &changes, &Key::Hmac(secret.to_vec()));
    }
    for (name, changes) in [
        ("an unknown extension is critical", vec![("crit", json!(["x-unknown"])), ("x-unknown", json!(1))]),
        ("the list of critical extensions is empty", vec![("crit", json!([]))]),
        ("b64 is false", vec![("crit", json!(["b64"])), ("b64", json!(false))]),
    ] {
        book.header(Rule::Critical, name, &changes, &issuer.key);
    }
    for (name, kind) in [("an id token", "id_token+jwt"), ("a logout token", "logout+jwt"), ("a number as type", "1")] {
        book.header(Rule::Type, name, &[("typ", json!(kind))], &issuer.key);
    }
    let claims = issuer.claims(SUBJECT, PROJECT).to_string();
    let doubled = claims.replacen('{', "{\"sub\":\"admin\",", 1);
    let token = compact(issuer.header().to_string().as_bytes(), doubled.as_bytes(), &issuer.key);
    book.token(Rule::Doubles, "a claim stands twice", &token);
    let header = issuer.header().to_string().replacen('{', "{\"kid\":\"another\",", 1);
    let token = compact(header.as_bytes(), claims.as_bytes(), &issuer.key);
    book.token(Rule::Doubles, "a member of the header stands twice", &token);
}

fn times(book: &mut Book<'_>) {
    let (now, leeway) = (book.issuer.clock.now(), book.issuer.leeway);
    for (name, value) in [
        ("no end", Value::Null),
        ("an end that is a text", json!((now + 60).to_string())),
        ("an end that is true", json!(true)),
        ("an end beyond all numbers", json!(1e300)),
    ] {
        book.claims(Rule::HasEnd, name, &[("exp", value)]);
    }
    book.claims(Rule::End, "ended this second", &[("exp", json!(now - leeway))]);
    book.claims(Rule::End, "ended long ago", &[("exp", json!(now - leeway - 86_400))]);
    book.claims(Rule::End, "ended in 1970", &[("exp", json!(0))]);
    book.claims(Rule::End, "an end below zero", &[("exp", json!(-1))]);
    // Far enough that the request cannot take so long.
    book.claims(Rule::Beginning, "begins in an hour", &[("nbf", json!(now + leeway + 3600))]);
    book.claims(Rule::Beginning, "a beginning that is a text", &[("nbf", json!("now"))]);
    book.claims(Rule::Issued, "issued tomorrow", &[("iat", json!(now + leeway + 86_400))]);
}

fn names(book: &mut Book<'_>) {
    let issuer = book.issuer;
    let (name, audience) = (issuer.name.clone(), issuer.audience.clone());
    for (what, value) in [
        ("another issuer", json!("https://evil.example")),
        ("no issuer", Value::Null),
        ("issuer with a slash behind", json!(format!("{name}/"))),
        ("issuer as a beginning", json!(format!("{name}.evil.example"))),
        ("issuer in capitals", json!(name.to_ascii_uppercase())),
        ("issuer in a list", json!([name])),
    ] {
        book.claims(Rule::Issuer, what, &[("iss", value)]);
    }
    for (what, value) in [
        ("another audience", json!("another-service")),
        ("no audience", Value::Null),
        ("audience as a beginning", json!(format!("{audience}-admin"))),
        ("a part of the audience", json!(audience.chars().skip(1).collect::<String>())),
        ("an empty list of audiences", json!([])),
        ("other audiences in a list", json!(["no-service-1", "no-service-2"])),
    ] {
        book.claims(Rule::Audience, what, &[("aud", value)]);
    }
    book.claims(Rule::Subject, "no subject", &[("sub", Value::Null)]);
    book.claims(Rule::Subject, "an empty subject", &[("sub", json!(""))]);
    book.claims(Rule::Revoked, "a token that was taken back", &[("jti", json!(REVOKED))]);
    let claim = issuer.project_claim.clone();
    for (what, value) in [
        ("a good token of another project", json!("project-b")),
        ("no project", Value::Null),
        ("the project as a beginning", json!("project-a-2")),
        ("a wildcard as project", json!("*")),
    ] {
        book.claims(Rule::Project, what, &[(&claim, value)]);
    }
}

/// Tokens of this issuer that a correct service accepts for `project-a`, however odd they look.
#[must_use]
pub fn valid_variants(issuer: &Issuer) -> Vec<Valid> {
    let now = issuer.clock.now();
    let good = issuer.token(SUBJECT, PROJECT);
    let mut list = vec![
        Valid { name: "a plain token", request: TokenRequest::bearer(&good) },
        Valid {
            name: "scheme in lower case (RFC 9110, section 11.1)",
            request: TokenRequest { authorization: vec![format!("bearer {good}")], query: String::new() },
        },
        Valid {
            name: "scheme in capitals",
            request: TokenRequest { authorization: vec![format!("BEARER {good}")], query: String::new() },
        },
        Valid {
            name: "a query that has nothing to do with it",
            request: TokenRequest { query: "page=2".to_owned(), ..TokenRequest::bearer(&good) },
        },
    ];
    let audience = issuer.audience.clone();
    for (name, changes) in [
        ("audience in a list", vec![("aud", json!([audience]))]),
        ("audience among others", vec![("aud", json!(["x", audience, "y"]))]),
        ("no beginning", vec![("nbf", Value::Null)]),
        ("no time of issue", vec![("iat", Value::Null)]),
        ("no id", vec![("jti", Value::Null)]),
        ("ends soon", vec![("exp", json!(now + 30))]),
        ("ends in a hundred years", vec![("exp", json!(now + 3_155_760_000))]),
        ("an end with a fraction (RFC 7519, section 2)", vec![("exp", json!(now as f64 + 30.5))]),
        ("begins this second", vec![("nbf", json!(now))]),
        ("issued this second", vec![("iat", json!(now))]),
        ("issued long ago", vec![("iat", json!(now.saturating_sub(86_400)))]),
        ("claims that nobody knows", vec![("x", json!({"deep": [1, {"y": null}]}))]),
        ("letters beyond ASCII", vec![("sub", json!("агент-é-🤖"))]),
        ("a long subject", vec![("sub", json!("s".repeat(1000)))]),
        ("a subject that looks like a program", vec![("sub", json!("'; drop table users; --"))]),
    ] {
        let mut claims = issuer.claims(SUBJECT, PROJECT);
        change(&mut claims, &changes);
        list.push(Valid { name, request: TokenRequest::bearer(&issuer.token_of(&claims)) });
    }
    for (name, changes) in [
        ("type of an access token (RFC 9068)", vec![("typ", json!("at+jwt"))]),
        ("type in lower case", vec![("typ", json!("jwt"))]),
        ("no type", vec![("typ", Value::Null)]),
        ("no key id", vec![("kid", Value::Null)]),
        ("members of the header that nobody knows", vec![("x", json!(1))]),
    ] {
        let mut header = issuer.header();
        change(&mut header, &changes);
        list.push(Valid {
            name,
            request: TokenRequest::bearer(&issuer.sign(&header, &issuer.claims(SUBJECT, PROJECT))),
        });
    }
    list
}
