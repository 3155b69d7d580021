//! Packages of a lock file or an image, held against a list of those that must not be used.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Severity, judged};
use crate::Outcome;
use crate::error::{CoreResult, Error, ErrorKind};

/// A package and its version. Versions are compared as Debian's policy says (section 5.6.12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version. That of a crate is written as Debian would: `1.0.0~rc.1` comes before `1.0.0`, and build metadata is left out.
    pub version: String,
}

/// What must not be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advisory {
    /// Where to read about it, such as `RUSTSEC-2024-0332` or `CVE-2024-3094`.
    pub id: String,
    /// Name of the package.
    pub package: String,
    /// How grave it is.
    pub severity: Severity,
    /// Versions concerned: from the first on, below the second. None means every version.
    #[serde(default)]
    pub vulnerable: Vec<(String, String)>,
}

impl Advisory {
    /// Reads a list of them as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it is none.
    pub fn list(json: &str) -> CoreResult<Vec<Self>> {
        serde_json::from_str(json)
            .map_err(|error| Error::new(ErrorKind::Config, "this is no list of advisories").caused_by(error))
    }

    fn concerns(&self, package: &Package) -> bool {
        let is_in = |(from, below): &(String, String)| {
            order(from, &package.version) != Ordering::Greater && order(&package.version, below) == Ordering::Less
        };
        self.package == package.name && (self.vulnerable.is_empty() || self.vulnerable.iter().any(is_in))
    }
}

/// The packages of a `Cargo.lock`.
#[must_use]
pub fn from_lock(text: &str) -> Vec<Package> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'));
        line.map(str::to_owned)
    };
    let package = |block: &str| {
        let version = value(block, "version")?;
        let version = version.split('+').next().unwrap_or_default().replace('-', "~");
        Some(Package { name: value(block, "name")?, version })
    };
    text.split("[[package]]").skip(1).filter_map(package).collect()
}

/// The installed packages of a Debian system, from its `/var/lib/dpkg/status` (`dpkg(1)`).
#[must_use]
pub fn from_dpkg(status: &str) -> Vec<Package> {
    let package = |block: &str| {
        let value =
            |key: &str| block.lines().find_map(|line| line.strip_prefix(key)).map(|text| text.trim().to_owned());
        let is_installed = value("Status:").is_none_or(|status| status.ends_with(" installed"));
        is_installed.then_some(Package { name: value("Package:")?, version: value("Version:")? })
    };
    status.split("\n\n").filter_map(package).collect()
}

/// Whether none of the packages is concerned by an advisory. Fails from high on; no packages or no advisories are no evidence.
#[must_use]
pub fn check(packages: &[Package], advisories: &[Advisory]) -> Outcome {
    if packages.is_empty() || advisories.is_empty() {
        let (packages, advisories) = (packages.len(), advisories.len());
        return Outcome::no_evidence(format!("{packages} packages were held against {advisories} advisories"));
    }
    let mut findings = Vec::new();
    for package in packages {
        for advisory in advisories.iter().filter(|advisory| advisory.concerns(package)) {
            findings.push((advisory.severity, format!("{} {}: {}", package.name, package.version, advisory.id)));
        }
    }
    judged(findings, format!("{} packages, {} advisories", packages.len(), advisories.len()))
}

/// Orders two versions: epoch, upstream version, revision.
fn order(a: &str, b: &str) -> Ordering {
    fn parts(version: &str) -> (u64, &str, &str) {
        let epoch = version.split_once(':').and_then(|(epoch, rest)| Some((epoch.parse().ok()?, rest)));
        let (epoch, rest) = epoch.unwrap_or((0, version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream, revision)
    }
    let (a, b) = (parts(a), parts(b));
    a.0.cmp(&b.0).then_with(|| order_part(a.1, b.1)).then_with(|| order_part(a.2, b.2))
}

/// Text and numbers by turns; `~` comes before the end, letters before everything else.
fn order_part(a: &str, b: &str) -> Ordering {
    let rank = |c: Option<u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_digit() => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(c),
        Some(c) => i32::from(c) + 256,
    };
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let is_text = |c: &[u8]| c.first().is_some_and(|c| !c.is_ascii_digit());
        while is_text(a) || is_text(b) {
            let by_rank = rank(a.first().copied()).cmp(&rank(b.first().copied()));
            if by_rank.is_ne() {
                return by_rank;
            }
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
        }
        let (left, right) = (number(&mut a), number(&mut b));
        let by_number = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
        if by_number.is_ne() {
            return by_number;
        }
    }
    Ordering::Equal
}

/// Takes the digits at the front, without leading zeros.
fn number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|c| **c == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::{Advisory, check, from_dpkg, from_lock, order};
    use crate::Outcome;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"h2\"\nversion = \"0.4.20\"\nsource = \"registry\"\ndependencies = [\n \"bytes\",\n]\n\n\
                        [[package]]\nname = \"ring\"\nversion = \"1.0.0-rc.1+build\"\n";
    const STATUS: &str = "Package: liblzma5\nStatus: install ok installed\nVersion: 5.8.1-1\n\nPackage: telnetd\n\
                          Status: deinstall ok config-files\nVersion: 0.17\n\nPackage: bash\nStatus: install ok installed\n\
                          Description: a shell\n of many lines\nVersion: 5.2.37-2+b10\n";

    fn advisories() -> Vec<Advisory> {
        Advisory::list(
            r#"[{"id": "RUSTSEC-2024-0332", "package": "h2", "severity": "high", "vulnerable": [["0", "0.3.26"], ["0.4.0", "0.4.4"]]},
                {"id": "RUSTSEC-2025-0009", "package": "ring", "severity": "medium", "vulnerable": [["0", "0.17.12"]]},
                {"id": "CVE-2024-3094", "package": "liblzma5", "severity": "critical", "vulnerable": [["5.6.0", "5.6.1+really5.4.5-1"]]},
                {"id": "no logins", "package": "telnetd", "severity": "high"}]"#,
        )
        .unwrap()
    }

    #[test]
    fn vulnerable_version_in_a_lock_file_is_named() {
        let packages = from_lock(LOCK);
        let shown: Vec<_> = packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
        assert_eq!(shown, ["h2 0.4.20", "ring 1.0.0~rc.1"]);
        let outcome = check(&packages, &advisories());
        assert!(outcome.is_pass() && outcome.detail() == "2 packages, 4 advisories", "{outcome}");
        let outcome = check(&from_lock(&LOCK.replace("0.4.20", "0.4.3")), &advisories());
        assert!(outcome.is_fail(), "{outcome}");
        assert_eq!(outcome.detail(), "high: h2 0.4.3: RUSTSEC-2024-0332");
        let outcome = check(&from_lock(&LOCK.replace("1.0.0-rc.1+build", "0.17.11")), &advisories());
        assert!(matches!(outcome, Outcome::Degraded { .. }), "{outcome}");
    }

    #[test]
    fn planted_package_of_an_image_is_named() {
        let packages = from_dpkg(STATUS);
        assert_eq!(packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>(), ["liblzma5", "bash"]);
        assert!(check(&packages, &advisories()).is_pass());
        let planted = STATUS.replace("5.8.1-1", "5.6.1-1").replace("deinstall ok config-files", "install ok installed");
        let outcome = check(&from_dpkg(&planted), &advisories());
        assert!(outcome.is_fail(), "{outcome}");
        assert_eq!(outcome.detail(), "critical: liblzma5 5.6.1-1: CVE-2024-3094; high: telnetd 0.17: no logins");
    }

    #[test]
    fn nothing_to_look_at_is_no_evidence() {
        assert!(check(&from_lock("no lock file"), &advisories()).is_no_evidence());
        assert!(check(&from_dpkg(""), &advisories()).is_no_evidence());
        assert!(check(&from_lock(LOCK), &[]).is_no_evidence());
        assert!(Advisory::list("{}").is_err());
    }

    #[test]
    fn versions_are_ordered_as_debian_does() {
        let rising = [
            "0",
            "0.3.9",
            "0.3.26",
            "0.4.0~rc.1",
            "0.4.0",
            "0.4.0-1",
            "0.4.0-1+b2",
            "0.4.0a",
            "0.4.0+really0.3",
            "0.4.1",
            "1.0",
            "1:0.1",
        ];
        for pair in rising.windows(2) {
            assert_eq!(order(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(order(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(order("1.02", "1.2"), Ordering::Equal);
    }
}
