// Package meta holds the documents that belong to an image: env.json, which
// says how to use it, and the records attached to it in a registry (verdicts,
// promotions, deprecations), with the artifact types and annotations under
// which they are found there.
package meta

// The artifact types of an image and of what is attached to it.
const (
	TypeImage       = "application/x-squashfs"
	TypeMeta        = "uenv/meta"
	TypeReframe     = "uenv/reframe"
	TypeProvenance  = "uenv/provenance"
	TypeSBOM        = "application/spdx+json"
	TypeChunks      = "uenv/chunks"
	TypePromotion   = "uenv/promotion"
	TypeDeprecation = "uenv/deprecation"
	TypePublication = "uenv/publication"
)

// The titles of layers: names of files and directories once pulled.
const (
	ImageTitle       = "store.squashfs"
	MetaTitle        = "meta"
	ReframeTitle     = "reframe"
	PromotionTitle   = "promotion.json"
	DeprecationTitle = "deprecation.json"
)

// The media type of our JSON documents as layers.
const MediaTypeJSON = "application/json"

// Files of the directories meta and reframe, as Source.LayerFile names them.
const (
	EnvFile     = MetaTitle + "/env.json"
	VerdictFile = ReframeTitle + "/verdict.json"
)

// Our annotations. They are for display and search, readable from one referrers
// call; decisions are recomputed from the documents.
const (
	annotationPrefix = "dev.uenv-ci."

	AnnotationKey   = annotationPrefix + "key"   // on images: the content key
	AnnotationCodec = annotationPrefix + "codec" // on images: codec, version, level, block size
	AnnotationMount = annotationPrefix + "mount" // on images: the mount point

	AnnotationVerdict   = annotationPrefix + "verdict"
	AnnotationTotal     = annotationPrefix + "tests.total"
	AnnotationPassed    = annotationPrefix + "tests.passed"
	AnnotationFailed    = annotationPrefix + "tests.failed"
	AnnotationSkipped   = annotationPrefix + "tests.skipped"
	AnnotationWaived    = annotationPrefix + "tests.waived"
	AnnotationSystem    = annotationPrefix + "system"
	AnnotationPartition = annotationPrefix + "partition"
	AnnotationSuite     = annotationPrefix + "suite"

	AnnotationState = annotationPrefix + "state" // on deprecations: active or withdrawn
	AnnotationWhen  = annotationPrefix + "when"  // on every record: FormatTime
)
