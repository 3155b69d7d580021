//! `cargo xtask audit`: pages of reports, seen by a browser in light and dark and at two widths, and looked through for what
//! a reader may stumble over.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

use crate::step::{self, root, target};

const SCRIPT: &str = include_str!("audit.js");
/// Golden pages leave the stylesheet out, since it is no content.
const STYLE: &str = include_str!("../../harness-core/src/report/html/style.css");
const NO_STYLE: &str = "<style>…</style>";
/// Widths in CSS pixels: a telephone and a desk.
const WIDTHS: [u32; 2] = [360, 1_440];
const SCHEMES: [(&str, u8); 2] = [("dark", 0), ("light", 1)];
/// What each planted defect is found as; the last one also pushes the page sideways.
const DEFECTS: [(&str, &str); 8] = [
    ("contrast", r##"<p style="color:#999;background:#fff">pale</p>"##),
    ("name", r#"<button></button>"#),
    ("heading", "<h4>too deep</h4>"),
    ("table", "<table><tr><th>no scope</th></tr></table>"),
    ("id", r#"<i id="twice">a</i><i id="twice">b</i>"#),
    ("target", r##"<a href="#nowhere">leads nowhere</a>"##),
    ("sideways", r#"<div style="width:3000px">wide</div>"#),
    ("name", r#"<svg viewBox="0 0 1 1"></svg>"#),
];

/// Audits these pages, or the golden ones and those of the last campaign.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    if let Some(unknown) = arguments.iter().find(|word| word.starts_with('-')) {
        eprintln!("xtask: `{unknown}` is unknown\nusage: cargo xtask audit [PAGE.html …]");
        return ExitCode::from(64);
    }
    let Some(browser) = browser() else {
        eprintln!("xtask: no browser: install the package chromium (apt-get install chromium)");
        return ExitCode::from(3);
    };
    let pages = if arguments.is_empty() { known_pages() } else { arguments.iter().map(PathBuf::from).collect() };
    if pages.is_empty() {
        eprintln!("xtask: no page to audit");
        return ExitCode::from(3);
    }
    let control = control(&browser);
    if let Err(why) = &control {
        eprintln!("xtask: the audit does not see its planted defects: {why}");
    }
    let mut clean = control.is_ok();
    for page in &pages {
        let text = match std::fs::read_to_string(page) {
            Ok(text) => text.replace(NO_STYLE, &format!("<style>{STYLE}</style>")),
            Err(error) => {
                eprintln!("xtask: {} cannot be read: {error}", page.display());
                return ExitCode::from(3);
            }
        };
        for width in WIDTHS {
            for scheme in SCHEMES {
                let found = audited(&browser, &text, width, scheme.1);
                clean &= found.as_ref().is_ok_and(Vec::is_empty);
                let shown = page.strip_prefix(root()).unwrap_or(page).display();
                match found {
                    Ok(found) => {
                        println!("{:>3} findings  {width:>5} px {:<5}  {shown}", found.len(), scheme.0);
                        found.iter().take(20).for_each(|(kind, place)| println!("      {kind:<9} {place}"));
                    }
                    Err(why) => println!("  ? findings  {width:>5} px {:<5}  {shown}: {why}", scheme.0),
                }
            }
        }
    }
    step::exit(clean)
}

fn browser() -> Option<String> {
    let answers = |name: &&str| {
        let command = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        command.is_ok_and(|status| status.success())
    };
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(answers).map(str::to_owned)
}

fn known_pages() -> Vec<PathBuf> {
    let golden = std::fs::read_dir(root().join("harness-core/tests/golden")).into_iter().flatten().flatten();
    let mut pages: Vec<PathBuf> = golden.map(|entry| entry.path().join("index.html")).collect();
    pages.sort();
    pages.push(root().join("test-reports/index.html"));
    pages.retain(|page| page.is_file());
    pages
}

/// Every planted defect is found as what it is, and the page without any has none.
fn control(browser: &str) -> Result<(), String> {
    let page = |defect: &str| {
        format!(
            "<!doctype html><html lang=en><head><meta name=color-scheme content=\"light dark\"><title>t</title></head>\
             <body><h1>a</h1><p>text</p>{defect}</body></html>"
        )
    };
    let plain = audited(browser, &page(""), WIDTHS[0], 1)?;
    if !plain.is_empty() {
        return Err(format!("a plain page has findings: {plain:?}"));
    }
    for (kind, defect) in DEFECTS {
        let found = audited(browser, &page(defect), WIDTHS[0], 1)?;
        if found.len() != 1 || found[0].0 != kind {
            return Err(format!("`{defect}` should be one finding of {kind}, is {found:?}"));
        }
    }
    Ok(())
}

/// What the audit finds in a page, as kind and place. The page lies in a frame of that width, since browsers have a least width.
fn audited(browser: &str, page: &str, width: u32, scheme: u8) -> Result<Vec<(String, String)>, String> {
    let dir = target().join("audit");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{} cannot be made: {error}", dir.display()))?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        Ok::<_, String>(path)
    };
    let with_script = match page.rsplit_once("</body>") {
        Some((before, after)) => format!("{before}<script>{SCRIPT}</script></body>{after}"),
        None => return Err("it has no end of its body".to_owned()),
    };
    write("page.html", &with_script)?;
    let frame = write(
        "frame.html",
        &format!(
            "<!doctype html><meta name=color-scheme content=\"light dark\"><body><pre id=found>-</pre>\
             <script>addEventListener('message', (event) => {{ document.getElementById('found').textContent = \
             '@@' + event.data.replace(/[@&<>\\u0080-\\uffff]/g, (one) => \
             '\\\\u' + one.charCodeAt(0).toString(16).padStart(4, '0')) + '@@'; }});</script>\
             <iframe src=page.html width={width} height=900 style=\"border:0\"></iframe></body>"
        ),
    )?;
    let dom = dom_of(browser, &frame, width, scheme, &dir)?;
    // What HTML would write in another way is escaped in the JSON.
    let list = dom.split("@@").nth(1).ok_or("the page did not answer")?;
    let found: Value = serde_json::from_str(list).map_err(|error| error.to_string())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(found.as_array().into_iter().flatten().map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
}

fn dom_of(browser: &str, frame: &Path, width: u32, scheme: u8, dir: &Path) -> Result<String, String> {
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"])
        .arg("--virtual-time-budget=10000")
        .arg(format!("--window-size={},1000", width + 60))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("file://{}", frame.display()))
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("{browser} does not start: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
