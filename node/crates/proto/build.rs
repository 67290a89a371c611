//! Compiles the .proto files into Rust with protox, so that a build needs no `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

/// Every file that is compiled; what they import is found under `proto/`.
const CONTRACTS: [&str; 5] =
    ["kv.proto", "auth.proto", "rpc.proto", "lock.proto", "election.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(CONTRACTS)?;

    // The encoded set keeps options that prost's own descriptor types drop: the JSON routes.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptor_set.bin"), &encoded)?;

    let mut descriptors = prost_types::FileDescriptorSet::decode(encoded.as_slice())?;
    // Nothing on the wire is of these packages; they only carry options.
    descriptors.file.retain(|file| !matches!(file.package(), "google.api" | "google.protobuf"));

    // `bytes(".")`: every bytes field is a reference-counted slice of the received frame.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
