//! Hands down what only the build knows: whether it is optimised, since figures of an unoptimised build are the compiler's and
//! not a system's; and by which compiler, since stored baselines are comparable within one compiler and one optimisation only.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(unoptimised)");
    let said = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    if said("OPT_LEVEL") == "0" {
        println!("cargo::rustc-cfg=unoptimised");
    }
    let version = Command::new(said("RUSTC")).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let version = if version.is_empty() { "unknown" } else { &version };
    println!("cargo::rustc-env=HARNESS_BUILT_BY={version}");
    println!("cargo::rustc-env=HARNESS_BUILT_FOR={}", said("PROFILE"));
    println!("cargo::rustc-env=HARNESS_BUILT_AT={}", said("OPT_LEVEL"));
}
