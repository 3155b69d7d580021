//! rlt with the bare client as its worker's state.

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Parser as _;
use peers_frameworks::{Raw, asked, tell};
use rlt::cli::BenchCli;
use rlt::{BenchSuite, IterInfo, IterReport, Status};
use tokio::time::Instant;

#[derive(Clone)]
struct Bare(SocketAddr);

#[async_trait]
impl BenchSuite for Bare {
    type WorkerState = Raw;

    async fn state(&self, _: u32) -> anyhow::Result<Raw> {
        Ok(Raw::connect(self.0).await?)
    }

    async fn bench(&mut self, raw: &mut Raw, _: &IterInfo) -> anyhow::Result<IterReport> {
        let begun = Instant::now();
        raw.get().await?;
        Ok(IterReport { duration: begun.elapsed(), status: Status::success(200), bytes: 2, items: 1 })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (address, length, users) = asked();
    let (users, length) = (users.to_string(), format!("{}s", length.as_secs()));
    let words = ["with-rlt", "--concurrency", &users, "--duration", &length, "--quiet"];
    rlt::cli::run(BenchCli::parse_from(words), Bare(address)).await?;
    tell();
    Ok(())
}
