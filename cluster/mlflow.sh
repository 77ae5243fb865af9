#!/usr/bin/env bash
# Start the MLflow server of a cluster on this machine, unless one is already running. It holds the runs and models of
# all searches.
#
# The server accepts connections from this machine only. This is enough, because the driver of a search runs here and
# trials do not use MLflow. To open it from elsewhere, forward the port (`ssh -L 5000:localhost:5000 HEAD`) and visit
# http://localhost:5000. Runs and models are stored in UNFREEZE_STORAGE; the server's log is ~/.unfreeze/mlflow.log.
set -euo pipefail

port=${UNFREEZE_MLFLOW_PORT:-5000}
storage=${UNFREEZE_STORAGE:?expected the folder that all nodes share, received nothing}

if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  echo "unfreeze: MLflow is already running: port $port is in use"
  exit 0
fi
mkdir -p "$storage"
# MLflow's job server is only used to evaluate language models and would take a gigabyte of memory.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
setsid nohup mlflow server --host 127.0.0.1 --port "$port" --workers 1 \
  --backend-store-uri "sqlite:///$storage/mlflow.db" --artifacts-destination "$storage/mlartifacts" \
  </dev/null >>"$HOME/.unfreeze/mlflow.log" 2>&1 &
echo "unfreeze: starting MLflow on port $port"
