-- What: event triggers that tell the API after each change of the schema: notify pgrst, 'reload schema'.
-- Why: a hosted project has them, so that a new table or function is served without a restart.
-- Who: they fire for everybody who changes the schema; nobody calls the functions.

create or replace function extensions.pgrst_ddl_watch()
returns event_trigger
language plpgsql
set search_path = ''
as $$
begin
    if exists (
        select
        from pg_catalog.pg_event_trigger_ddl_commands() as command
        where command.command_tag in (
            'CREATE SCHEMA', 'ALTER SCHEMA',
            'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE',
            'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE',
            'CREATE VIEW', 'ALTER VIEW',
            'CREATE MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW',
            'CREATE FUNCTION', 'ALTER FUNCTION',
            'CREATE TRIGGER',
            'CREATE TYPE', 'ALTER TYPE',
            'CREATE RULE',
            'COMMENT'
        )
        and command.schema_name is distinct from 'pg_temp'
    ) then
        notify pgrst, 'reload schema';
    end if;
end;
$$;

create or replace function extensions.pgrst_drop_watch()
returns event_trigger
language plpgsql
set search_path = ''
as $$
begin
    if exists (
        select
        from pg_catalog.pg_event_trigger_dropped_objects() as dropped
        where dropped.object_type in (
            'schema', 'table', 'foreign table', 'view', 'materialized view', 'function', 'trigger', 'type', 'rule'
        )
        and not dropped.is_temporary
    ) then
        notify pgrst, 'reload schema';
    end if;
end;
$$;

drop event trigger if exists pgrst_ddl_watch;

create event trigger pgrst_ddl_watch
    on ddl_command_end
    execute function extensions.pgrst_ddl_watch();

drop event trigger if exists pgrst_drop_watch;

create event trigger pgrst_drop_watch
    on sql_drop
    execute function extensions.pgrst_drop_watch();
