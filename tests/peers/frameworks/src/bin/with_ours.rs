//! Our engine with the bare client.

use std::io;
use std::net::SocketAddr;

use harness_load::target::Target;
use harness_load::{Iteration, Load};
use peers_frameworks::{Raw, asked, tell};

struct Bare(SocketAddr);

impl Target for Bare {
    type User = Raw;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<Raw> {
        Raw::connect(self.0).await
    }

    async fn call(&self, user: &mut Raw, _: &Iteration) -> io::Result<()> {
        user.get().await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (address, length, users) = asked();
    Load::closed(users).hold(length).target("get", 1, Bare(address)).run().await?;
    tell();
    Ok(())
}
