-- What: pg_temp.stand_in_extension(), which registers a schema of ours under the name of the extension it stands in for.
-- Why: a migration that says `create extension if not exists pg_net` then runs here as it runs on a hosted project, and
--      checks and dumps of the schema leave the stand-in out, as they leave out the extension.
-- Who: the platform's own files, in the session that prepares a database; it is gone afterwards.

create or replace function pg_temp.stand_in_extension(p_name text, p_version text, p_home text, p_schema text)
returns void
language plpgsql
set search_path = ''
as $$
declare
    v_extension oid;
    v_object record;
begin
    select oid
    into v_extension
    from pg_catalog.pg_extension
    where extname = p_name;

    -- The catalog row is what `create extension` would write; that itself would want files in the server's own
    -- directory, which belongs to the system's packages.
    if v_extension is null then
        v_extension := pg_catalog.pg_nextoid(
            'pg_catalog.pg_extension'::pg_catalog.regclass,
            'oid',
            'pg_catalog.pg_extension_oid_index'::pg_catalog.regclass
        );
        insert into pg_catalog.pg_extension (
            oid, extname, extowner, extnamespace, extrelocatable, extversion, extconfig, extcondition
        )
        select v_extension, p_name, role.oid, home.oid, false, p_version, null, null
        from pg_catalog.pg_roles as role
        cross join pg_catalog.pg_namespace as home
        where role.rolname = current_user
        and home.nspname = p_home;
    end if;

    for v_object in
        select identity.type, identity.identity
        from (
            select 'pg_catalog.pg_class'::pg_catalog.regclass as classid, oid as objid
            from pg_catalog.pg_class
            where relnamespace = p_schema::pg_catalog.regnamespace
            and relkind in ('r', 'v', 'S')
            union all
            select 'pg_catalog.pg_proc'::pg_catalog.regclass, oid
            from pg_catalog.pg_proc
            where pronamespace = p_schema::pg_catalog.regnamespace
            union all
            -- Domains, enums and composite types that are no table's row type; array types follow theirs.
            select 'pg_catalog.pg_type'::pg_catalog.regclass, type.oid
            from pg_catalog.pg_type as type
            left join pg_catalog.pg_class as relation on relation.oid = type.typrelid
            where type.typnamespace = p_schema::pg_catalog.regnamespace
            and (type.typtype in ('d', 'e') or (type.typtype = 'c' and relation.relkind = 'c'))
        ) as member
        cross join lateral pg_catalog.pg_identify_object(member.classid, member.objid, 0) as identity
        where not exists (
            select
            from pg_catalog.pg_depend as known
            where known.classid = member.classid
            and known.objid = member.objid
            and (known.deptype = 'e' or (known.deptype = 'i' and identity.type = 'sequence'))
        )
    loop
        execute pg_catalog.format('alter extension %I add %s %s', p_name, v_object.type, v_object.identity);
    end loop;
end;
$$;
