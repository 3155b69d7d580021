//! `harness ws`: one conversation with a WebSocket by hand: what it says by itself, then what it answers.

use std::io::Write;
use std::time::Duration;

use harness_core::{CoreResult, ErrorKind};
use harness_ws::{Message, Ws};

use crate::flush::runtime;

/// Whoever says nothing for this long has nothing more to say.
const SILENCE: Duration = Duration::from_secs(1);

/// Opens a WebSocket, prints what comes by itself, then sends each text and prints what comes after it, in order.
///
/// # Errors
/// Those of [`Ws::connect`], with what the server answered instead of opening; [`ErrorKind::Io`] when `out` cannot be
/// written to.
pub fn talk(url: &str, texts: &[&str], out: &mut dyn Write) -> CoreResult {
    runtime()?.block_on(async {
        let mut ws = Ws::connect(url).await?;
        writeln!(out, "open {}", ws.url())?;
        listen(&mut ws, out).await?;
        for text in texts {
            if ws.end().is_some() {
                break;
            }
            writeln!(out, "> {text}")?;
            ws.send_raw(*text).await?;
            listen(&mut ws, out).await?;
        }
        let end = match ws.end() {
            Some(end) => end.clone(),
            None => ws.close().await?,
        };
        writeln!(out, "end  {end}")?;
        Ok(())
    })
}

async fn listen(ws: &mut Ws, out: &mut dyn Write) -> CoreResult {
    loop {
        match ws.receive().within(SILENCE).await {
            Ok(Message::Text(text)) => writeln!(out, "< {text}")?,
            Ok(other) => writeln!(out, "< {other:?}")?,
            Err(error) if error.kind() == ErrorKind::Timeout || ws.end().is_some() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
