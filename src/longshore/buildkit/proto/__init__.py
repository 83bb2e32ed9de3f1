"""Generated messages of BuildKit's gRPC services; `regenerate.sh` rewrites them from the .proto files."""
