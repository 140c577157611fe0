-- What: which tables are audited and how, and what each of their columns is in generated code.
-- Why: code that knows its columns is many times faster than code that looks them up with every row.
-- Who: the generator of the trigger code, in a later chapter. No API role has a right here.

create table audit.tables (
    -- squawk-ignore prefer-bigint-over-int
    id integer primary key generated always as identity,
    table_oid regclass not null,
    recorded_as regclass not null,
    enabled boolean not null default true,
    leave_out text[] not null default '{}',
    mask text[],
    secrets text[] not null default '{}',
    whole_row boolean not null default false,
    columns jsonb not null default '{}',
    fingerprint text not null default '',
    changed_at timestamptz not null default clock_timestamp(),
    constraint a_table_stands_here_once unique (table_oid)
);

comment on table audit.tables is 'One row for each table that is, or was, audited. Written by audit.enable and audit.disable.';
comment on column audit.tables.id is 'Names the generated function: audit.record_<id>().';
comment on column audit.tables.table_oid is 'The table. Follows it through renames.';
comment on column audit.tables.recorded_as is 'Whose name the trail uses: the table itself, or the partitioned table it belongs to.';
comment on column audit.tables.enabled is 'False after audit.disable; the options stay for the next audit.enable.';
comment on column audit.tables.leave_out is 'Columns that never reach the trail. An UPDATE of nothing else leaves no row.';
comment on column audit.tables.mask is
    'Columns of which the trail only tells that they changed, instead of those in secrets. Null: nobody has chosen.';
comment on column audit.tables.secrets is 'Columns whose names sound like a secret, or did so before they were renamed.';
comment on column audit.tables.whole_row is 'Whether an UPDATE is recorded with all columns, instead of the changed ones.';
comment on column audit.tables.columns is 'Number and name of each column when the code was generated; finds renamed ones.';
comment on column audit.tables.fingerprint is 'Of all the code was generated from. When it differs the code is stale.';
comment on column audit.tables.changed_at is 'When it was enabled, disabled or generated anew.';

alter table audit.tables enable row level security;

create policy "Nobody sees what is audited through the API"
    on audit.tables for all to anon, authenticated using (false) with check (false);


create or replace function audit.sounds_secret(p_text text)
returns boolean
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select p_text ~* '(passw|passphrase|secret|token|api_?key|private_?key|credential)'
$$;

comment on function audit.sounds_secret(text) is
    'Whether a name, or a statement, speaks of a secret. Such columns are masked unless audit.enable() says otherwise.';


create or replace function audit.identity_of(p_table oid)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format('%I.%I', n.nspname, c.relname)
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.oid = p_table
$$;

comment on function audit.identity_of(oid) is 'Schema and name of a table, quoted where SQL would need it.';


create or replace function audit.key_columns(p_table oid)
returns text[]
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(a.attname::text order by key.position), '{}')
    from pg_catalog.pg_index as i
    cross join unnest(i.indkey::smallint[]) with ordinality as key (attnum, position)
    join pg_catalog.pg_attribute as a on a.attrelid = i.indrelid and a.attnum = key.attnum
    where i.indrelid = p_table
    and i.indisprimary
$$;

comment on function audit.key_columns(oid) is 'Names of the primary key''s columns, in its order; empty without one.';


-- json may stand inside of arrays, domains and composites.
create or replace function audit.holds_json(p_type oid)
returns boolean
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with recursive parts (type_oid) as (
        select p_type
        union
        select part.type_oid
        from parts
        join pg_catalog.pg_type as t on t.oid = parts.type_oid
        cross join lateral (
            select t.typbasetype
            union all
            select t.typelem
            union all
            select a.atttypid
            from pg_catalog.pg_attribute as a
            where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
        ) as part (type_oid)
        where part.type_oid <> 0
    )
    select exists (select from parts where type_oid = 'pg_catalog.json'::regtype)
$$;

comment on function audit.holds_json(oid) is 'Whether a type is json or has json in it, which may hold what jsonb refuses.';


-- One row for each column as the generator needs it. Everything is quoted here, once.
create or replace function audit.column_code(p_options audit.tables)
returns table (
    "position" integer,
    name text,
    ident text,
    json_key text,
    is_key boolean,
    is_left_out boolean,
    is_masked boolean,
    changed text,
    old_json text,
    new_json text
)
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select
        a.attnum::integer,
        a.attname::text,
        quote_ident(a.attname),
        to_json(a.attname::text)::text,
        a.attname = any (audit.key_columns(p_options.table_oid)),
        a.attname = any (p_options.leave_out),
        masked.yes,
        -- Types whose = tells every difference are compared by it. All others by their bytes: 1.0 and 1.00 are
        -- equal numbers, json has no equality at all, and a collation may take 'a' for 'A'.
        case
            when t.typname in (
                'bool', 'int2', 'int4', 'int8', 'oid', 'uuid', 'date', 'timestamp', 'timestamptz', 'bytea'
            ) or (t.typcategory = 'S' and coalesce(l.collisdeterministic, true) and t.typtype = 'b' and t.typname in ('text', 'varchar'))
                then format('o.%1$I is distinct from n.%1$I', a.attname)
            else format('row(o.%1$I)::record *<> row(n.%1$I)::record', a.attname)
        end,
        case
            when masked.yes then format('case when o.%I is null then ''null'' else ''"***"'' end', a.attname)
            when audit.holds_json(a.atttypid) then format('audit.json_text(to_json(o.%I))', a.attname)
            when a.attnotnull then format('to_json(o.%I)', a.attname)
            else format('coalesce(to_json(o.%I)::text, ''null'')', a.attname)
        end,
        case
            when masked.yes then format('case when n.%I is null then ''null'' else ''"***"'' end', a.attname)
            when audit.holds_json(a.atttypid) then format('audit.json_text(to_json(n.%I))', a.attname)
            when a.attnotnull then format('to_json(n.%I)', a.attname)
            else format('coalesce(to_json(n.%I)::text, ''null'')', a.attname)
        end
    from pg_catalog.pg_attribute as a
    join pg_catalog.pg_type as t on t.oid = a.atttypid
    left join pg_catalog.pg_collation as l on l.oid = a.attcollation
    cross join lateral (
        select a.attname = any (coalesce(p_options.mask, p_options.secrets))
            and not (a.attname = any (audit.key_columns(p_options.table_oid))) as yes
    ) as masked
    where a.attrelid = p_options.table_oid
    and a.attnum > 0
    and not a.attisdropped
$$;

comment on function audit.column_code(audit.tables) is
    'For each column of a table: what it is to the trail, and the SQL that compares it and shows it as JSON, with o for '
    'the old row and n for the new one.';


-- A function takes 100 arguments, a table has up to 1,600 columns.
create or replace function audit.join_code(p_parts text[])
returns text
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case count(*)
        when 0 then $code$''$code$
        when 1 then format('coalesce(%s, '''')', min(chunk.code))
        else format('concat_ws('','', %s)', string_agg(format('nullif(%s, '''')', chunk.code), E',\n' order by chunk.number))
    end
    from (
        select (part.number - 1) / 90 as number,
            format(E'concat_ws('','',\n%s)', string_agg(part.code, E',\n' order by part.number)) as code
        from unnest(p_parts) with ordinality as part (code, number)
        group by 1
    ) as chunk
$$;

comment on function audit.join_code(text[]) is 'SQL that joins pieces of JSON by commas and leaves out those that are null.';


create or replace function audit.key_code(p_table oid, p_row text)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with keys as (
        select key.position,
            case
                -- As text they would depend on the session's DateStyle and TimeZone.
                when t.typname = 'timestamptz'
                    then format('(to_jsonb(%s.%I at time zone ''UTC'') #>> ''{}'')', p_row, key.name)
                when t.typname in ('date', 'time', 'timetz', 'timestamp', 'float4', 'float8', 'numeric', 'interval')
                    then format('(to_jsonb(%s.%I) #>> ''{}'')', p_row, key.name)
                else format('%s.%I::text', p_row, key.name)
            end as code
        from unnest(audit.key_columns(p_table)) with ordinality as key (name, position)
        join pg_catalog.pg_attribute as a on a.attrelid = p_table and a.attname = key.name
        join pg_catalog.pg_type as t on t.oid = a.atttypid
    )
    select case count(*)
        when 0 then 'null'
        when 1 then min(keys.code)
        else format('jsonb_build_array(%s)::text', string_agg(keys.code, ', ' order by keys.position))
    end
    from keys
$$;

comment on function audit.key_code(oid, text) is 'SQL that shows the primary key of a row as database_changes.primary_key does.';


create or replace function audit.json_text(p_json json)
returns text
language plpgsql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(p_json::jsonb::text, 'null');
exception
    -- json keeps what jsonb cannot hold, \u0000 for one. Then the trail holds its text.
    when others then return to_json(p_json::text)::text;
end;
$$;

comment on function audit.json_text(json) is 'A json value such that jsonb takes it: as it is, or its text as a string.';
