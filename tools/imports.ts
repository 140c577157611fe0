/** The imports of a TypeScript file, types included. */

export interface Import {
  specifier: string
  line: number
}

/** Reads `import … from`, `export … from`, bare `import '…'` and `import('…')` with a literal. */
export function importsOf(text: string): Import[] {
  const code = withoutComments(text)
  const patterns = [
    /^\s*(?:import|export)\b[^'"`;]*?\bfrom\s*(['"])(?<specifier>[^'"]+)\1/gm,
    /^\s*import\s*(['"])(?<specifier>[^'"]+)\1/gm,
    /\bimport\s*\(\s*(['"])(?<specifier>[^'"]+)\1/g,
  ]
  const found = patterns.flatMap((pattern) =>
    [...code.matchAll(pattern)].map((match) => {
      const specifier = match.groups?.specifier ?? ''
      const at = match.index + match[0].lastIndexOf(specifier)
      return { specifier, line: code.slice(0, at).split('\n').length }
    })
  )
  return found.sort((a, b) => a.line - b.line)
}

/** Comments become blanks, so that lines keep their numbers and examples in them are no imports. */
function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, (comment) => comment.replaceAll(/[^\n]/g, ' '))
}
