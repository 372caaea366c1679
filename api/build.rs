//! The dashboard's files are compiled in: new ones are a reason to compile again.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../dashboard/dist");
}
