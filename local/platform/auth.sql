-- What: rights on schema `auth`, and auth.uid(), auth.role(), auth.email(), auth.jwt(), as a hosted project has them.
-- Why: the local Auth server makes the tables, but grants nothing and reads the caller's claims in one of their two forms only.
-- Who: everybody may call the functions; only `postgres` and Auth itself see the tables, and rows of them.

grant usage on schema auth to anon, authenticated, service_role;

grant all on schema auth to postgres, supabase_auth_admin, dashboard_user;

do $$
declare
    v_table text;
begin
    for v_table in
        select relation.oid::pg_catalog.regclass::text
        from pg_catalog.pg_class as relation
        where relation.relnamespace = 'auth'::pg_catalog.regnamespace
        and relation.relkind = 'r'
    loop
        execute pg_catalog.format('alter table %s owner to supabase_auth_admin', v_table);
        execute pg_catalog.format('alter table %s enable row level security', v_table);
    end loop;
end;
$$;

-- PostgREST of old set one variable for each claim, PostgREST of today sets one for all. No search path is fixed
-- here, since that would keep the planner from taking these functions into policies; every name is the system's own.
create or replace function auth.uid()
returns uuid
language sql
stable
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    )::uuid
$$;

create or replace function auth.role()
returns text
language sql
stable
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.role', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
    )
$$;

create or replace function auth.email()
returns text
language sql
stable
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.email', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
    )
$$;

create or replace function auth.jwt()
returns jsonb
language sql
stable
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
    )::jsonb
$$;

grant all on all tables in schema auth to postgres, dashboard_user;

grant all on all sequences in schema auth to postgres, dashboard_user;

grant all on all routines in schema auth to postgres, dashboard_user;

-- The Auth server makes the CLI's bookkeeping tables too; the CLI writes them as `postgres`.
do $$
declare
    v_table text;
begin
    create schema if not exists supabase_migrations;
    alter schema supabase_migrations owner to postgres;
    for v_table in
        select relation.oid::pg_catalog.regclass::text
        from pg_catalog.pg_class as relation
        where relation.relnamespace = 'supabase_migrations'::pg_catalog.regnamespace
        and relation.relkind = 'r'
    loop
        execute pg_catalog.format('alter table %s owner to postgres', v_table);
    end loop;
end;
$$;
