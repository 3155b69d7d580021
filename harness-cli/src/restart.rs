//! `harness restart`: ends a shared server and starts a fresh one.

use std::io::Write;

use harness_core::keeper::{census, end_slot};
use harness_core::{CoreResult, Error, ErrorKind};

/// Ends the shared servers of this kind, then starts one anew and prints where it listens.
///
/// # Errors
/// [`ErrorKind::Config`] for a server nobody knows; [`ErrorKind::Environment`] when none can be started.
pub fn restart(server: &str, out: &mut dyn Write) -> CoreResult {
    if !matches!(server, "postgres" | "redis") {
        let error = Error::new(ErrorKind::Config, format!("there is no server `{server}` to restart"));
        return Err(error.remedy("name postgres or redis"));
    }
    for slot in census()?.slots.iter().filter(|slot| slot.live && slot.name.starts_with(&format!("{server}-"))) {
        for lease in slot.leases.iter().filter(|lease| lease.held) {
            writeln!(out, "note: lease {} is held; its test will lose the server", lease.id)?;
        }
        end_slot(slot)?;
        writeln!(out, "ended {}", slot.name)?;
    }
    let answers = crate::flush::runtime()?.block_on(async {
        CoreResult::Ok(match server {
            "postgres" => harness_db::postgres().await?.url(),
            _ => harness_db::redis().await?.url(),
        })
    })?;
    writeln!(out, "a fresh one answers; it stays for as long as somebody uses it (tried with {answers})")?;
    Ok(())
}
