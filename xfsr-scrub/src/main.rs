//! The program: see the library part.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    xfsr_scrub::main()
}
