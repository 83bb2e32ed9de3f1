"""Generated messages of containerd's gRPC API; `regenerate.sh` rewrites them from the .proto files."""
