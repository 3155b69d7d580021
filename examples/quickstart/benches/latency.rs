//! What `GET /hello` takes, over one connection that stays open. `cargo bench -p quickstart` saves it the first time and
//! compares from then on; a real regression ends with 1.

use std::process::ExitCode;

use criterion::{Criterion, criterion_group};
use harness_core::client::Http;
use harness_load::baseline::criterion as baseline;

fn hello(criterion: &mut Criterion) {
    // Service and client share one thread: what is measured is their work, not how long the machine takes to wake another
    // core, which differs from process to process by more than a regression worth finding.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let address = runtime.block_on(quickstart::serve()).expect("a free port");
    let http = Http::new(format!("http://{address}")).expect("an address is a base");
    // A planted defect doubles the latency: the gate must find it.
    let calls = if harness_core::env::Settings::get().plants.iter().any(|plant| plant == "slow-hello") { 2 } else { 1 };
    criterion.bench_function("hello", |bencher| {
        bencher.iter(|| {
            for _ in 0..calls {
                let answer = runtime.block_on(async { http.get("/hello").await?.expect_status(200) });
                answer.expect("hello is answered");
            }
        });
    });
}

criterion_group!(benches, hello);

fn main() -> ExitCode {
    let gate = baseline("quickstart");
    benches();
    Criterion::default().configure_from_args().final_summary();
    gate.finish()
}
