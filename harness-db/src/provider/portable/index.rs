//! Package indexes: which one this machine uses, and what its simple API offers (PEP 503 pages and PEP 691 documents).
//!
//! No index is named here: the machine's own configuration says it, or its `pip` knows its default.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use super::super::image::{CommandLine, Run};
use super::PortableError;
use super::wheel::Offer;

/// The address of the index, without a slash at the end, and the places that were asked for it.
pub(super) fn index_url(vars: &BTreeMap<String, String>, run: Run<'_>) -> Result<String, PortableError> {
    let mut tried = Vec::new();
    for name in ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"] {
        if let Some(url) = vars.get(name).filter(|url| !url.trim().is_empty()) {
            return Ok(tidy(url));
        }
        tried.push(name.to_owned());
    }
    for file in pip_configurations(vars) {
        if let Some(url) = fs::read_to_string(&file).ok().and_then(|text| configured_index(&text)) {
            return Ok(tidy(&url));
        }
        tried.push(file.display().to_string());
    }
    for python in ["python3", "python"] {
        let script = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)";
        let command = CommandLine::new([python, "-c", script], Duration::from_secs(20));
        match run(&command) {
            Ok(ran) if ran.is_success() && ran.stdout.trim().starts_with("http") => return Ok(tidy(&ran.stdout)),
            Ok(ran) => tried.push(format!("{python}'s pip ({})", ran.last_words())),
            Err(error) => tried.push(format!("{python}'s pip ({error})")),
        }
    }
    Err(PortableError::NoIndex { tried })
}

fn tidy(url: &str) -> String {
    url.trim().trim_end_matches('/').to_owned()
}

/// The configuration files of pip, the one that wins first.
fn pip_configurations(vars: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let home = vars.get("HOME").map(PathBuf::from);
    let config = vars.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".config")));
    let files = [
        vars.get("PIP_CONFIG_FILE").map(PathBuf::from),
        config.map(|dir| dir.join("pip/pip.conf")),
        home.map(|dir| dir.join(".pip/pip.conf")),
        Some("/etc/xdg/pip/pip.conf".into()),
        Some("/etc/pip.conf".into()),
    ];
    files.into_iter().flatten().collect()
}

/// `index-url` of the section `[global]`.
fn configured_index(text: &str) -> Option<String> {
    let mut global = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            global = line.eq_ignore_ascii_case("[global]");
        } else if global
            && let Some((key, value)) = line.split_once(['=', ':'])
            && matches!(key.trim(), "index-url" | "index_url" | "index")
            && !value.trim().is_empty()
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

/// An address without the user and password it may carry, and the header that says them instead.
pub(super) fn split_credentials(url: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rsplit_once('@') {
        Some((credentials, host)) => {
            let header = format!("Basic {}", base64(&percent_decoded(credentials)));
            (format!("{scheme}://{host}{}", &rest[host_end..]), Some(header))
        }
        None => (url.to_owned(), None),
    }
}

/// Scheme and host of an address, by which credentials are bound.
pub(super) fn host(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let length = scheme.len() + 3 + rest.find('/').unwrap_or(rest.len());
    url.get(..length)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sextet = (group >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    text
}

/// GET with bounded times; `Accept` and credentials as a package index wants them.
pub(super) fn get(url: &str, limit: Duration, credentials: Option<&str>) -> Result<ureq::Body, PortableError> {
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .timeout_global(Some(limit))
        .build();
    let accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5, */*;q=0.1";
    let mut request = ureq::Agent::from(config).get(url).header("Accept", accept);
    if let Some(credentials) = credentials {
        request = request.header("Authorization", credentials);
    }
    match request.call() {
        Ok(response) => Ok(response.into_body()),
        Err(error) => {
            let status = if let ureq::Error::StatusCode(status) = &error { Some(*status) } else { None };
            Err(PortableError::Http { url: url.to_owned(), status, reason: error.to_string() })
        }
    }
}

/// All files that the index offers of a package.
pub(super) fn offers(index: &str, package: &str) -> Result<Vec<Offer>, PortableError> {
    let (index, credentials) = split_credentials(index);
    let page = format!("{index}/{package}/");
    let mut text = String::new();
    let body = match get(&page, Duration::from_secs(60), credentials.as_deref()) {
        Err(PortableError::Http { status: Some(404), .. }) => {
            return Err(PortableError::NotOffered { package: package.to_owned(), index });
        }
        answer => answer?,
    };
    let read = body.into_reader().take(64 << 20).read_to_string(&mut text);
    let unreadable = |reason: String| PortableError::Http { url: page.clone(), status: None, reason };
    read.map_err(|error| unreadable(error.to_string()))?;
    // Some mirrors label a page as a document, so the text itself decides.
    if text.trim_start().starts_with('{') {
        let document: serde_json::Value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        Ok(offers_of_document(&page, &document))
    } else {
        Ok(offers_of_page(&page, &text))
    }
}

/// PEP 691.
fn offers_of_document(page: &str, document: &serde_json::Value) -> Vec<Offer> {
    let files = document["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let offers = files.iter().filter_map(|file| {
        Some(Offer {
            url: join(page, file["url"].as_str()?),
            sha256: file["hashes"]["sha256"].as_str().map(str::to_ascii_lowercase),
            size: file["size"].as_u64(),
            yanked: !matches!(file["yanked"], serde_json::Value::Null | serde_json::Value::Bool(false)),
            file: file["filename"].as_str()?.to_owned(),
        })
    });
    offers.collect()
}

/// PEP 503: every anchor is a file, its fragment the sum.
fn offers_of_page(page: &str, html: &str) -> Vec<Offer> {
    let anchors = html.split("<a ").skip(1).filter_map(|rest| rest.split_once('>').map(|(attributes, _)| attributes));
    let offers = anchors.filter_map(|attributes| {
        let (_, href) = attributes.split_once("href=")?;
        let quote = href.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let href = href[1..].split(quote).next()?.replace("&amp;", "&");
        let (address, fragment) = href.split_once('#').unwrap_or((&href, ""));
        Some(Offer {
            url: join(page, address),
            sha256: fragment.strip_prefix("sha256=").map(str::to_ascii_lowercase),
            size: None,
            yanked: attributes.contains("data-yanked"),
            file: address.split('?').next()?.rsplit('/').next()?.replace("%2B", "+"),
        })
    });
    offers.collect()
}

/// A reference seen on a page, as an absolute address (RFC 3986 section 5.2, as far as indexes use it).
fn join(page: &str, reference: &str) -> String {
    if reference.contains("://") {
        return reference.to_owned();
    }
    let (scheme, rest) = page.split_once("://").unwrap_or(("https", page));
    if let Some(rest) = reference.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut segments: Vec<&str> = path.split('/').collect();
    segments.pop(); // what comes after the last slash is replaced
    if reference.starts_with('/') {
        segments.clear();
    }
    for segment in reference.trim_start_matches('/').split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("{scheme}://{host}/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::image::Ran;

    fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_environment_names_the_index_before_any_file_and_any_program() {
        let never = |_: &CommandLine| -> std::io::Result<Ran> { panic!("asked a program") };
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(".config/pip")).unwrap();
        fs::write(home.path().join(".config/pip/pip.conf"), "[global]\nindex-url = http://b.invalid/simple/\n")
            .unwrap();
        let home = home.path().to_str().unwrap();
        let by_variable = vars(&[("PIP_INDEX_URL", "http://a.invalid/simple/"), ("HOME", home)]);
        assert_eq!(index_url(&by_variable, &never).unwrap(), "http://a.invalid/simple");
        assert_eq!(index_url(&vars(&[("HOME", home)]), &never).unwrap(), "http://b.invalid/simple");
    }

    #[test]
    fn configuration_counts_in_its_global_section_only() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(configured_index(text).as_deref(), expected, "{text}");
        check("[global]\ncert = x\nindex-url = http://a.invalid/s\n", Some("http://a.invalid/s"));
        check("[install]\nindex-url = http://a.invalid/s\n", None);
        check("[global]\n# index-url = http://a.invalid/s\nindex-url =\n", None);
    }

    #[test]
    fn references_join_their_page() {
        let page = "http://h.invalid:8/root/simple/p/";
        let check = |reference, expected| assert_eq!(join(page, reference), expected, "{reference}");
        check("https://f.invalid/x.whl", "https://f.invalid/x.whl");
        check("//f.invalid/x.whl", "http://f.invalid/x.whl");
        check("/files/x.whl", "http://h.invalid:8/files/x.whl");
        check("x.whl", "http://h.invalid:8/root/simple/p/x.whl");
        check("../../files/x.whl", "http://h.invalid:8/root/files/x.whl");
    }

    #[test]
    fn credentials_leave_the_address_and_become_a_header() {
        let (url, header) = split_credentials("https://us%40er:p@h.invalid/simple");
        assert_eq!((url.as_str(), header.as_deref()), ("https://h.invalid/simple", Some("Basic dXNAZXI6cA==")));
        assert_eq!(split_credentials("https://h.invalid/a@b"), ("https://h.invalid/a@b".into(), None));
    }

    #[test]
    fn pages_and_documents_say_the_same() {
        let page = r#"<a href="../x-1.0-py3-none-any.whl#sha256=AB" data-yanked="">x</a> <a href='y.whl'>y</a> <b>"#;
        let document = serde_json::json!({"files": [
            {"filename": "x-1.0-py3-none-any.whl", "url": "../x-1.0-py3-none-any.whl", "hashes": {"sha256": "AB"}, "yanked": "bad"},
            {"filename": "y.whl", "url": "y.whl", "hashes": {}},
        ]});
        let of_page = offers_of_page("http://h.invalid/s/x/", page);
        assert_eq!(of_page, offers_of_document("http://h.invalid/s/x/", &document));
        assert_eq!(of_page[0].url, "http://h.invalid/s/x-1.0-py3-none-any.whl");
        assert_eq!((of_page[0].sha256.as_deref(), of_page[0].yanked), (Some("ab"), true));
        assert_eq!((of_page[1].sha256.as_deref(), of_page[1].yanked), (None, false));
    }
}
