//! A campaign that needs nothing but memory, run as a test target of its own: what a consumer writes.

mod demo;

fn main() -> std::process::ExitCode {
    demo::campaign().main()
}
