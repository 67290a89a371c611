//! Real server processes under stock clients and faults.
