//! Wheels: what a file name says about version and platform, and which one of an index fits this machine best.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use super::super::image::{CommandLine, Run};

/// A file that an index offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// Absolute address.
    pub(super) url: String,
    /// SHA-256 in lower-case hexadecimal; `None` when the index states none.
    pub(super) sha256: Option<String>,
    /// Size in bytes, if the index states it.
    pub(super) size: Option<u64>,
    /// Withdrawn by its authors (PEP 592).
    pub(super) yanked: bool,
    /// Name of the file.
    pub(super) file: String,
}

/// The C library of a Linux machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Libc {
    /// glibc of this version; `None`: not known, any wheel may be tried.
    Glibc(Option<(u32, u32)>),
    /// musl.
    Musl,
}

/// The machine, as wheels see it (PEP 600, PEP 656).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Platform {
    /// Linux on this architecture.
    Linux(&'static str, Libc),
    /// macOS of this version on this architecture.
    MacOs(&'static str, Option<(u32, u32)>),
    /// Nothing is offered for it.
    Other,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux(arch, Libc::Glibc(Some((major, minor)))) => write!(f, "Linux {arch}, glibc {major}.{minor}"),
            Self::Linux(arch, Libc::Glibc(None)) => write!(f, "Linux {arch}, glibc of unknown version"),
            Self::Linux(arch, Libc::Musl) => write!(f, "Linux {arch}, musl"),
            Self::MacOs(arch, Some((major, minor))) => write!(f, "macOS {major}.{minor} {arch}"),
            Self::MacOs(arch, None) => write!(f, "macOS {arch}"),
            Self::Other => write!(f, "{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

impl Platform {
    /// The machine this runs on; asks `getconf` or `sw_vers` for a version.
    pub(super) fn here(run: Run<'_>) -> Self {
        let ask = |argv: &[&str]| {
            let ran = run(&CommandLine::new(argv.iter().copied(), Duration::from_secs(5))).ok()?;
            first_pair(ran.is_success().then_some(ran.stdout.as_str())?)
        };
        let arch = match (std::env::consts::OS, std::env::consts::ARCH) {
            ("macos", "aarch64") => "arm64",
            (_, arch @ ("x86_64" | "aarch64")) => arch,
            _ => return Self::Other,
        };
        match std::env::consts::OS {
            "linux" => match ask(&["getconf", "GNU_LIBC_VERSION"]) {
                Some(version) => Self::Linux(arch, Libc::Glibc(Some(version))),
                None if std::path::Path::new(&format!("/lib/ld-musl-{arch}.so.1")).exists() => {
                    Self::Linux(arch, Libc::Musl)
                }
                None => Self::Linux(arch, Libc::Glibc(None)),
            },
            "macos" => Self::MacOs(arch, ask(&["sw_vers", "-productVersion"])),
            _ => Self::Other,
        }
    }

    /// Whether a wheel with this one platform tag runs here.
    pub(super) fn fits(&self, tag: &str) -> bool {
        match self {
            Self::Linux(arch, libc) => {
                let Some(tag) = tag.strip_suffix(arch).and_then(|tag| tag.strip_suffix('_')) else { return false };
                match libc {
                    Libc::Glibc(here) => glibc_of(tag).is_some_and(|needed| here.is_none_or(|here| needed <= here)),
                    Libc::Musl => tag.starts_with("musllinux_"),
                }
            }
            Self::MacOs(arch, here) => {
                let Some(rest) = tag.strip_prefix("macosx_") else { return false };
                let Some(version) =
                    rest.strip_suffix(arch).or_else(|| rest.strip_suffix("universal2")).and_then(underscored_pair)
                else {
                    return false;
                };
                here.is_none_or(|here| version <= here)
            }
            Self::Other => false,
        }
    }
}

/// The glibc a `manylinux` tag asks for (PEP 513, 571, 599, 600).
fn glibc_of(tag: &str) -> Option<(u32, u32)> {
    match tag {
        "manylinux1" => Some((2, 5)),
        "manylinux2010" => Some((2, 12)),
        "manylinux2014" => Some((2, 17)),
        _ => underscored_pair(tag.strip_prefix("manylinux_")?),
    }
}

fn underscored_pair(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim_end_matches('_').split_once('_')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The first `number.number` in a text; a lone number counts as `number.0`.
fn first_pair(text: &str) -> Option<(u32, u32)> {
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut numbers = word.split('.').map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next().unwrap_or(0)))
}

/// What the name of a wheel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WheelName {
    /// Version of the package, as written.
    pub(super) version: String,
    build: u64,
    platforms: Vec<String>,
}

impl WheelName {
    /// Reads `name-version[-build]-python-abi-platform[.platform...].whl`.
    pub(super) fn parse(file: &str) -> Option<Self> {
        let parts: Vec<&str> = file.strip_suffix(".whl")?.split('-').collect();
        let (build, platforms) = match parts.as_slice() {
            [_, _, _, _, platforms] => ("", platforms),
            [_, _, build, _, _, platforms] => (*build, platforms),
            _ => return None,
        };
        let digits: String = build.chars().take_while(char::is_ascii_digit).collect();
        Some(Self {
            version: parts[1].to_owned(),
            build: digits.parse().unwrap_or(0),
            platforms: platforms.split('.').map(str::to_owned).collect(),
        })
    }
}

/// Release numbers and post-release number; `None` for anything that is not a final release (PEP 440).
fn release(version: &str) -> Option<(Vec<u64>, u64)> {
    let version = version.split('+').next()?;
    let (numbers, post) = match version.split_once(".post") {
        Some((numbers, post)) => (numbers, post.parse().ok()?),
        None => (version, 0),
    };
    let mut numbers: Vec<u64> = numbers.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some((numbers, post))
}

/// Orders versions as PEP 440 does; whatever is not a final release comes before all that is.
pub(super) fn compare_versions(one: &str, other: &str) -> Ordering {
    release(one).cmp(&release(other))
}

/// The newest wheel that runs on `platform`; else the platform tags that were on offer.
pub(super) fn newest_fitting(offers: &[Offer], platform: &Platform) -> Result<(WheelName, Offer), Vec<String>> {
    let wheels = offers.iter().filter(|offer| !offer.yanked);
    let wheels = wheels.filter_map(|offer| Some((WheelName::parse(&offer.file)?, offer)));
    let (fitting, other): (Vec<_>, Vec<_>) = wheels
        .filter(|(name, _)| release(&name.version).is_some())
        .partition(|(name, _)| name.platforms.iter().any(|tag| platform.fits(tag)));
    let order = |one: &(WheelName, &Offer), other: &(WheelName, &Offer)| {
        let by_version = compare_versions(&one.0.version, &other.0.version);
        // The same content is offered once per Python version: any will do, but always the same one.
        by_version.then(one.0.build.cmp(&other.0.build)).then_with(|| one.1.file.cmp(&other.1.file))
    };
    match fitting.into_iter().max_by(order) {
        Some((name, offer)) => Ok((name, offer.clone())),
        None => {
            let mut tags: Vec<String> = other.into_iter().flat_map(|(name, _)| name.platforms).collect();
            tags.sort();
            tags.dedup();
            Err(tags)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM: Platform = Platform::Linux("x86_64", Libc::Glibc(Some((2, 36))));

    fn offer(file: &str) -> Offer {
        Offer { url: format!("http://i.invalid/{file}"), sha256: None, size: None, yanked: false, file: file.into() }
    }

    #[test]
    fn platform_tags_fit_by_architecture_and_library_version() {
        let check =
            |platform: &Platform, tag: &str, fits: bool| assert_eq!(platform.fits(tag), fits, "{platform:?} {tag}");
        check(&BOOKWORM, "manylinux_2_28_x86_64", true);
        check(&BOOKWORM, "manylinux_2_36_x86_64", true);
        check(&BOOKWORM, "manylinux_2_38_x86_64", false);
        check(&BOOKWORM, "manylinux2014_x86_64", true);
        check(&BOOKWORM, "manylinux2014_aarch64", false);
        check(&BOOKWORM, "musllinux_1_2_x86_64", false);
        check(&BOOKWORM, "linux_x86_64", false);
        check(&Platform::Linux("x86_64", Libc::Glibc(Some((2, 9)))), "manylinux_2_12_x86_64", false);
        check(&Platform::Linux("x86_64", Libc::Glibc(None)), "manylinux_2_99_x86_64", true);
        check(&Platform::Linux("aarch64", Libc::Musl), "musllinux_1_2_aarch64", true);
        check(&Platform::Linux("aarch64", Libc::Musl), "manylinux_2_28_aarch64", false);
        check(&Platform::MacOs("arm64", Some((14, 4))), "macosx_11_0_arm64", true);
        check(&Platform::MacOs("arm64", Some((14, 4))), "macosx_11_0_universal2", true);
        check(&Platform::MacOs("arm64", Some((10, 15))), "macosx_11_0_arm64", false);
        check(&Platform::MacOs("arm64", Some((14, 4))), "macosx_11_0_x86_64", false);
        check(&Platform::Other, "any", false);
    }

    #[test]
    fn takes_the_newest_release_that_fits() {
        let offers = [
            "p-0.9.0-cp311-cp311-manylinux_2_28_x86_64.whl",
            "p-0.10.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
            "p-0.10.0-7-cp310-cp310-manylinux_2_28_x86_64.whl",
            "p-0.11.0-cp311-cp311-manylinux_2_40_x86_64.whl",
            "p-1.0.0rc1-cp311-cp311-manylinux_2_28_x86_64.whl",
            "p-2.0.0-cp311-cp311-win_amd64.whl",
            "p-3.0.0.tar.gz",
        ];
        let offers: Vec<Offer> = offers.into_iter().map(offer).collect();
        let (name, chosen) = newest_fitting(&offers, &BOOKWORM).unwrap();
        assert_eq!((name.version.as_str(), chosen.file.as_str()), ("0.10.0", offers[2].file.as_str()));
    }

    #[test]
    fn passes_over_withdrawn_wheels_and_says_which_platforms_there_were() {
        let withdrawn = Offer { yanked: true, ..offer("p-1.0-py3-none-manylinux2014_x86_64.whl") };
        let offers = [withdrawn, offer("p-1.0-py3-none-win_amd64.whl"), offer("p-1.0-py3-none-macosx_11_0_arm64.whl")];
        assert_eq!(newest_fitting(&offers, &BOOKWORM).unwrap_err(), ["macosx_11_0_arm64", "win_amd64"]);
    }

    #[test]
    fn versions_compare_by_number_and_post_release() {
        let check = |one, other, expected| assert_eq!(compare_versions(one, other), expected, "{one} {other}");
        check("0.10", "0.9", Ordering::Greater);
        check("1.0", "1.0.0", Ordering::Equal);
        check("9.1.2.post2", "9.1.2", Ordering::Greater);
        check("2.0rc1", "1.0", Ordering::Less);
    }
}
