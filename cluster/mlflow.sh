#!/usr/bin/env bash
# Starts the MLflow server of a cluster on this machine, unless one runs already: runs and models of all searches.
#
# Only this machine reaches it, which is enough: searches are driven from here, and trials have no need of it. To look
# at it from elsewhere, forward the port: `ssh -L 5000:localhost:5000 HEAD`, then http://localhost:5000.
# UNFREEZE_STORAGE is where runs and models are kept; what the server prints goes to ~/.unfreeze/mlflow.log.
set -euo pipefail

port=${UNFREEZE_MLFLOW_PORT:-5000}
storage=${UNFREEZE_STORAGE:?expected the folder that all nodes share}

if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  echo "unfreeze: port $port answers: MLflow runs already"
  exit 0
fi
mkdir -p "$storage"
# Jobs are for evaluations of language models and would take a gigabyte.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
setsid nohup mlflow server --host 127.0.0.1 --port "$port" --workers 1 \
  --backend-store-uri "sqlite:///$storage/mlflow.db" --artifacts-destination "$storage/mlartifacts" \
  </dev/null >>"$HOME/.unfreeze/mlflow.log" 2>&1 &
echo "unfreeze: MLflow starts on port $port"
