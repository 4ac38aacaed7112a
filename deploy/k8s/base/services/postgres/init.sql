-- Runs once, on an empty volume. A role and a database a program: neither can read the other's.
-- psql reads the passwords itself, so that they stand in no command line.
\set mlflow_password `cat /run/secrets/postgres/mlflow`
\set optuna_password `cat /run/secrets/postgres/optuna`
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE optuna LOGIN PASSWORD :'optuna_password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE optuna OWNER optuna;
REVOKE CONNECT ON DATABASE mlflow, optuna FROM PUBLIC;
