//! Tells the tests where the generated migrations are. `sqlx::migrate!` takes a literal path relative to the package, so
//! the literal is written here.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=PEERS_MIGRATIONS");
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let given = std::env::var_os("PEERS_MIGRATIONS").map(PathBuf::from);
    let dir = given.unwrap_or_else(|| package.join("../../../target/peers/migrations"));
    assert!(dir.is_dir(), "no migrations in {}: run `cargo xtask peers db`", dir.display());
    println!("cargo:rerun-if-changed={}", dir.display());
    println!("cargo:rustc-env=FORTY_MIGRATIONS={}", dir.display());
    let up: PathBuf = package.components().skip(1).map(|_| "..").collect();
    let relative = up.join(dir.strip_prefix("/").unwrap_or(&dir));
    let text = format!(
        "/// The migrations, embedded as a user of sqlx embeds them.\n\
         pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!({:?});\n",
        relative.display().to_string()
    );
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(Path::new(&out).join("migrator.rs"), text).expect("the build directory can be written");
}
