//! Writes the YAML of every resource beside its types: `cargo run -p quorate-crds --bin crdgen`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, text) in quorate_crds::yaml::files() {
        let path = directory.join(file);
        std::fs::write(&path, text)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
