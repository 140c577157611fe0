-- What: who owns the database, the schemas `public` and `extensions`, and the extensions every hosted project has.
-- Why: migrations run as `postgres`, which must be able to create in `public` without being a superuser.
-- Who: `postgres` may create; the API roles may use both schemas, and see no table that is not granted to them by name.

do $$
begin
    -- In PostgreSQL 15 and later the owner of the database is the owner of its schema `public`.
    execute pg_catalog.format('alter database %I owner to postgres', current_database());
    execute pg_catalog.format('grant all on database %I to dashboard_user', current_database());
end;
$$;

grant usage on schema public to postgres, anon, authenticated, service_role;

-- Since 2026 a hosted project gives the API roles nothing by default, `service_role` included.
alter default privileges for role postgres in schema public
    revoke all on tables from anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    revoke all on sequences from anon, authenticated, service_role;
alter default privileges for role postgres in schema public
    revoke all on functions from anon, authenticated, service_role;

create schema if not exists extensions authorization postgres;

grant usage on schema extensions to anon, authenticated, service_role;

grant all on schema extensions to dashboard_user;

do $$
declare
    v_name text;
begin
    foreach v_name in array array['pgcrypto', 'uuid-ossp', 'pg_stat_statements']
    loop
        if exists (select from pg_catalog.pg_available_extensions where name = v_name) then
            execute pg_catalog.format('create extension if not exists %I with schema extensions', v_name);
        end if;
    end loop;
end;
$$;

grant all on all routines in schema extensions to postgres with grant option;

grant all on all tables in schema extensions to postgres with grant option;
