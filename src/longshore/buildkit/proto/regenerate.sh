#!/bin/sh
# Regenerates *_pb2.py and *_pb2.pyi beside the .proto files. Needs grpcio-tools: PYTHON=… sh regenerate.sh
set -eu
cd "$(dirname "$0")"
"${PYTHON:-python3}" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. ./*.proto
# The messages are plain proto3: any protobuf from 5 on reads them. Without this check, the code would refuse
# every runtime older than the compiler that happened to write it.
sed -i -e '/^_runtime_version\.Validate/,/^)/d' -e '/runtime_version/d' ./*_pb2.py
