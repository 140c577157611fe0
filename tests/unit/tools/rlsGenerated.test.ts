import { expect, test } from 'vitest'
import { staleFiles, writeFiles } from '../../../tools/rls/generated.ts'
import { scratchProject } from './scratchProject.ts'

const generated = '-- What: a test.\n-- Why: written by `npm run rls -- --write`.\n'
const files = new Map([
  ['docs/rls-matrix.md', '# Matrix\n'],
  ['supabase/tests/rls_public.test.sql', generated],
])

test('staleFiles() names what is missing and what holds something else, and writeFiles() mends it', async () => {
  const { root } = await scratchProject({ 'docs/rls-matrix.md': '# Old\n' })
  const stale = await staleFiles(root, files)
  expect(stale.map(({ path }) => path)).toEqual([...files.keys()])

  await writeFiles(root, stale)
  expect(await staleFiles(root, files)).toEqual([])
  for (const [path, text] of files) expect(await Deno.readTextFile(`${root}/${path}`)).toBe(text)
})

test('writeFiles() removes what was generated and is rendered no more, and leaves what somebody wrote', async () => {
  const { root } = await scratchProject({
    ...Object.fromEntries(files),
    'supabase/tests/rls_gone.test.sql': generated,
    'supabase/tests/mine.test.sql': '-- My own test.\n',
    'supabase/tests/notes.md': generated,
  })
  const stale = await staleFiles(root, files)
  expect(stale).toEqual([{ path: 'supabase/tests/rls_gone.test.sql' }])

  await writeFiles(root, stale)
  const left = await Array.fromAsync(Deno.readDir(`${root}/supabase/tests`))
  expect(left.map(({ name }) => name).sort()).toEqual(['mine.test.sql', 'notes.md', 'rls_public.test.sql'])
})

test('staleFiles() is content where nothing differs', async () => {
  const { root } = await scratchProject(Object.fromEntries(files))
  expect(await staleFiles(root, files)).toEqual([])
})
