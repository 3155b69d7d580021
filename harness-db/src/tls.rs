//! A throw-away certificate authority, for servers that speak TLS and for clients that shall prove who they are.
//!
//! ```
//! use harness_db::tls::Authority;
//!
//! let authority = Authority::new("orders")?;
//! let server = authority.server(&["127.0.0.1", "localhost"])?;
//! let stranger = Authority::new("somebody else")?; // whoever trusts this one refuses the server
//! assert_ne!(authority.certificate_pem(), stranger.certificate_pem());
//! assert!(server.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----"));
//! # harness_db::Result::Ok(())
//! ```
//!
//! Keys are ECDSA on P-256 (FIPS 186-5) and never leave the files they are written to; certificates are X.509 version 3
//! (RFC 5280), valid from 1975 to 4096, so that no clock decides a test. For an expired one ask [`Authority::expired_server`].

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use harness_core::{CoreResult, Error, ErrorKind};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::provider::own::hand_over;

/// A certificate authority of one test or one server. Its key is in memory only and gone with it.
pub struct Authority {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, both PEM (RFC 7468).
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

/// Where [`Pair::write_to`] put a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PairFiles {
    /// The certificate, readable by everybody.
    pub certificate: PathBuf,
    /// The private key, readable by its owner alone.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority with a new key; the name stands in its certificates as the issuer.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when the machine gives no random bytes.
    pub fn new(name: impl Into<String>) -> CoreResult<Self> {
        let name = name.into();
        let mut params = params(&name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key()?).map_err(|error| unsigned(&name, error))?;
        Ok(Self { name, issuer })
    }

    /// Its own certificate: what a client trusts (`sslrootcert`, `--cacert`).
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for these host names and addresses, and its key.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the name that no certificate can carry.
    pub fn server(&self, names: &[&str]) -> CoreResult<Pair> {
        self.sign(&server_params(names)?)
    }

    /// As [`Authority::server`], but its validity ended on 1 January 2001: every client that looks refuses it.
    ///
    /// # Errors
    /// As [`Authority::server`].
    pub fn expired_server(&self, names: &[&str]) -> CoreResult<Pair> {
        let mut params = server_params(names)?;
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        self.sign(&params)
    }

    /// A client's certificate and its key. The name is the subject's common name, which Postgres (`cert`,
    /// `clientcert=verify-full`) and Redis (`tls-auth-clients-user`) take for the user.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when the machine gives no random bytes.
    pub fn client(&self, name: &str) -> CoreResult<Pair> {
        let mut params = params(name, &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        self.sign(&params)
    }

    /// Writes its certificate as `<stem>.crt`, readable by everybody, and returns the path.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] naming the file.
    pub fn write_to(&self, dir: &Path, stem: &str) -> CoreResult<PathBuf> {
        let path = dir.join(format!("{stem}.crt"));
        write(&path, &self.certificate_pem(), 0o644, None)?;
        Ok(path)
    }

    fn sign(&self, params: &CertificateParams) -> CoreResult<Pair> {
        let key = key()?;
        let signed = params.signed_by(&key, &self.issuer).map_err(|error| unsigned(&self.name, error))?;
        Ok(Pair { certificate_pem: signed.pem(), key_pem: key.serialize_pem() })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Pair {
    /// Writes `<stem>.crt` and `<stem>.key`, the key readable by its owner alone (mode 0600: servers refuse wider ones).
    ///
    /// `owner` is the user the server runs as; when this process is root the files become that user's property, otherwise
    /// they are ours and the server's alike.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] naming the file; [`ErrorKind::Environment`] when there is no such user.
    pub fn write_to(&self, dir: &Path, stem: &str, owner: Option<&str>) -> CoreResult<PairFiles> {
        let files = PairFiles { certificate: dir.join(format!("{stem}.crt")), key: dir.join(format!("{stem}.key")) };
        write(&files.certificate, &self.certificate_pem, 0o644, owner)?;
        write(&files.key, &self.key_pem, 0o600, owner)?;
        Ok(files)
    }
}

impl fmt::Debug for Pair {
    /// Without the key: what is printed ends up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// Says which cryptography this process takes, unless it has said so itself: the Redis driver leaves it to the process, and
/// would panic where two are compiled in.
#[cfg(feature = "redis")]
pub(crate) fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may have said it meanwhile, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn key() -> CoreResult<KeyPair> {
    KeyPair::generate().map_err(|error| {
        Error::new(ErrorKind::Environment, "could not make a private key")
            .remedy("look whether this machine gives random bytes (getrandom)")
            .caused_by(error)
    })
}

fn server_params(names: &[&str]) -> CoreResult<CertificateParams> {
    let mut params = params(names.first().copied().unwrap_or("server"), names)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

/// A certificate of this common name for these subject alternative names; addresses are told from host names.
fn params(common: &str, names: &[&str]) -> CoreResult<CertificateParams> {
    let owned: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(owned).map_err(|error| {
        Error::new(ErrorKind::Config, format!("no certificate can carry the names {names:?}"))
            .remedy("give addresses and ASCII host names")
            .caused_by(error)
    })?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn unsigned(authority: &str, error: rcgen::Error) -> Error {
    Error::new(ErrorKind::Config, format!("the authority `{authority}` could not sign a certificate")).caused_by(error)
}

fn write(path: &Path, text: &str, mode: u32, owner: Option<&str>) -> CoreResult {
    let put = || -> std::io::Result<()> {
        let mut file: File = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))?; // a file that was there keeps its own mode
        file.write_all(text.as_bytes())
    };
    put().map_err(|error| {
        Error::new(ErrorKind::Io, format!("could not write the certificate file {}", path.display())).caused_by(error)
    })?;
    match owner {
        Some(owner) if rustix::process::geteuid().is_root() => hand_over(path, owner),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use harness_core::ErrorKind;

    use super::Authority;

    #[test]
    fn keys_are_readable_by_their_owner_alone_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let pair = Authority::new("a").unwrap().server(&["127.0.0.1"]).unwrap();
        std::fs::write(dir.path().join("server.key"), "old and wide open").unwrap();
        let files = pair.write_to(dir.path(), "server", None).unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.key), mode(&files.certificate)), (0o600, 0o644));
        assert_eq!(std::fs::read_to_string(&files.key).unwrap(), pair.key_pem);
        assert!(!format!("{pair:?}").contains("PRIVATE KEY"), "{pair:?}");
        if rustix::process::geteuid().is_root() {
            let files = pair.write_to(dir.path(), "given", Some("nobody")).unwrap();
            assert_ne!(std::fs::metadata(files.key).unwrap().uid(), 0);
        }
    }

    #[test]
    fn names_that_no_certificate_can_carry_are_shown() {
        let error = Authority::new("a").unwrap().server(&["münchen"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("münchen"), "{error:?}");
    }

    #[test]
    fn every_authority_and_every_pair_has_a_key_of_its_own() {
        let (one, two) = (Authority::new("same name").unwrap(), Authority::new("same name").unwrap());
        assert_ne!(one.certificate_pem(), two.certificate_pem());
        let (a, b) = (one.client("app").unwrap(), one.client("app").unwrap());
        assert_ne!(a.key_pem, b.key_pem);
        assert_ne!(one.server(&["localhost"]).unwrap().key_pem, one.expired_server(&["localhost"]).unwrap().key_pem);
    }
}
